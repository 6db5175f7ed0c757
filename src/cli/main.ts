import { asDitrunError, DitrunError, exitCodes, messageOf } from "../failure.js";
import { checkOutputs } from "../files/apart.js";
import { paint } from "../views/page.js";
import type { Command } from "./command.js";
import { type Line, mistakeIn, programLine, readLine, spelled, unknownTopic, wantsJson } from "./command-line.js";
import { commands } from "./commands/index.js";
import { envelopeOf } from "./envelope.js";
import { Events } from "./events.js";
import { endOnInterrupt, interruption, unlessEnding } from "./interrupts.js";
import type { JobHosts } from "./job-hosts.js";
import { failureFields, JsonDocument } from "./json-document.js";
import { globalFiles, reads, writes } from "./named-files.js";
import { readOptions } from "./option.js";
import { launchOptions } from "./options/launch.js";
import { modelOptions } from "./options/model.js";
import { outputOptions } from "./options/output.js";
import { ownAllocation } from "./own-allocation.js";
import type { Parsed } from "./parser.js";
import { terminal } from "./terminal.js";

export interface Overrides {
  /** Another program for the workers, for those who use the launcher as a library. */
  entry?: string;
}

/** Runs one command line (without node and the script). Never throws. @returns the exit code. */
export async function main(argv: readonly string[], overrides: Overrides = {}): Promise<number> {
  const line = readLine(argv, commands);
  // Also of a line that is not understood, as far as it says so.
  const envelope = envelopeOf(argv);
  let document = new JsonDocument(wantsJson(line) ? "" : undefined, envelope);
  let events = Events.none();
  const select = async () => {
    const unknown = unknownTopic(line, commands);
    if (unknown) throw unknown;
    const parsed = programLine(line, argv, commands) ?? (await parsedLine(line, argv));
    if ("text" in parsed) return show(parsed.text);
    const { command, given, rest } = parsed;
    const prepared = await command.prepare(given);
    const { json, events: eventsFile, ...named } = readOptions({ ...outputOptions, ...namesOfFiles }, given);
    if (eventsFile === "-" && json === "") {
      throw new DitrunError("ERR_OPTION_CONFLICT", "--json and --events - both want stdout: give one of them a file.");
    }
    const use = command.operandsAre === "written" ? writes : reads;
    const operands = command.operands === undefined ? [] : rest.flatMap((path) => use({ [command.name]: path }));
    const files = [...globalFiles(named), ...prepared.files, ...operands];
    document = new JsonDocument(json, envelope, files);
    const begin = async () => {
      events = await Events.open(eventsFile, [...files, ...writes({ "--json": json || undefined })]);
      events.tell({ event: "started", ...envelope });
    };
    const context = () => ({ command: command.name, document, events, entry: overrides.entry, rest });
    return {
      ...{ files, begin },
      hosts: async () => ("nnodes" in command.options ? openHosts(command, given, rest) : undefined),
      run: (hosts: JobHosts | undefined) =>
        hosts?.follows ? prepared.follow({ ...context(), hosts }) : prepared.run({ ...context(), hosts }),
    };
  };
  // Unheard it would end the launcher without a word; heard, the write that met the limit fails and says so.
  process.on("SIGXFSZ", ignore);
  const selecting = select();
  const stopListening = endOnInterrupt(async (signal) => {
    await selecting.catch(() => undefined);
    const failure = interruption(signal);
    events.tell({ event: "failed", exitCode: failure.exitCode, error: failureFields(failure) });
    await document.fail(failure);
  });
  let hosts: JobHosts | undefined;
  try {
    const selected = await selecting;
    if (!selected) return exitCodes.ok;
    hosts = await selected.hosts();
    // The results are for the host that leads.
    if (hosts?.follows) return await selected.run(hosts);
    await document.check();
    await checkOutputs(selected.files);
    await selected.begin();
    await unlessEnding();
    const exitCode = await selected.run(hosts);
    await hosts?.over(exitCode);
    events.tell({ event: "finished", exitCode, result: document.result });
    return exitCode;
  } catch (error) {
    const failure = asDitrunError(error);
    const debug = line.options.some(({ name, text }) => name === "log-level" && text === "debug");
    const stack = debug && !(error instanceof DitrunError) && error instanceof Error ? `\n${error.stack}` : "";
    const tell = (message: string) =>
      terminal.write(`${paint(terminal.page, ["bold", "red"], "ditrun:")} ${message}\n`);
    tell(`${failure.message}${stack}`);
    await hosts?.over(failure.exitCode, failure);
    // Where another host leads, that one writes the documents.
    if (hosts?.follows) return failure.exitCode;
    events.tell({ event: "failed", exitCode: failure.exitCode, error: failureFields(failure) });
    await document.fail(failure).catch((more: unknown) => tell(messageOf(more)));
    return failure.exitCode;
  } finally {
    process.off("SIGXFSZ", ignore);
    stopListening();
  }
}

/** Loads the parser only now: a program's line is understood without it, and starts sooner. */
async function parsedLine(line: Line, argv: readonly string[]): Promise<Parsed> {
  const { parse } = await import("./parser.js");
  return parse(spelled(line), commands, helpColumns()).catch((error: unknown) => {
    throw mistakeIn(line, argv, commands) ?? error;
  });
}

/** The hosts of a command that starts processes. */
async function openHosts(
  { name, jobOptions }: Command,
  given: ReadonlyMap<string, readonly string[]>,
  rest: readonly string[],
): Promise<JobHosts | undefined> {
  const options = jobOptions?.(given) ?? readOptions({ ...launchOptions, ...outputOptions }, given);
  // A program on one host needs nothing of what is loaded here.
  if (jobOptions && ownAllocation(options).nodes === 1) return undefined;
  const { JobHosts } = await import("./job-hosts.js");
  return JobHosts.open(options, [...given, ["command", [name, ...rest]]]);
}

const namesOfFiles = { plan: modelOptions.plan, model: modelOptions.model };

function ignore(): void {}

function show(text: string): undefined {
  process.stdout.write(`${text}\n`);
}

const helpColumns = () => Math.min(120, process.stdout.columns || 120);
