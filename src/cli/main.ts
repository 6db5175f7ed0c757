import { asDitrunError, DitrunError, exitCodes, messageOf } from "../failure.js";
import { checkOutputs } from "../files/apart.js";
import { mistakeIn, readLine, spelled, unknownTopic, wantsJson } from "./command-line.js";
import { commands } from "./commands/index.js";
import { endOnInterrupt, interruption, unlessEnding } from "./interrupts.js";
import { JsonDocument } from "./json-document.js";
import { globalFiles } from "./named-files.js";
import { readOptions } from "./option.js";
import { modelOptions } from "./options/model.js";
import { outputOptions } from "./options/output.js";
import { parse } from "./parser.js";

export interface Overrides {
  /** Another program for the workers, for those who use the launcher as a library. */
  entry?: string;
}

/** Runs one command line (without node and the script). Never throws. @returns the exit code. */
export async function main(argv: readonly string[], overrides: Overrides = {}): Promise<number> {
  const line = readLine(argv, commands);
  // Also of a line that is not understood, as far as it says so.
  let document = new JsonDocument(wantsJson(line) ? "" : undefined);
  const select = async () => {
    const unknown = unknownTopic(line, commands);
    if (unknown) throw unknown;
    const parsed = await parse(spelled(line), commands, helpColumns()).catch((error: unknown) => {
      throw mistakeIn(line, argv, commands) ?? error;
    });
    if ("text" in parsed) return show(parsed.text);
    const { command, given, rest } = parsed;
    const prepared = await command.prepare(given);
    const { json, ...named } = readOptions({ ...outputOptions, ...namesOfFiles }, given);
    const files = [...globalFiles(named), ...prepared.files];
    document = new JsonDocument(json, files);
    return { files, run: () => prepared.run({ document, entry: overrides.entry, rest }) };
  };
  // Unheard it would end the launcher without a word; heard, the write that met the limit fails and says so.
  process.on("SIGXFSZ", ignore);
  const selecting = select();
  const stopListening = endOnInterrupt(async (signal) => {
    await selecting.catch(() => undefined);
    await document.fail(interruption(signal));
  });
  try {
    const selected = await selecting;
    if (!selected) return exitCodes.ok;
    await document.check();
    await checkOutputs(selected.files);
    await unlessEnding();
    return await selected.run();
  } catch (error) {
    const failure = asDitrunError(error);
    const debug = line.options.some(({ name, text }) => name === "log-level" && text === "debug");
    const stack = debug && !(error instanceof DitrunError) && error instanceof Error ? `\n${error.stack}` : "";
    process.stderr.write(`ditrun: ${failure.message}${stack}\n`);
    await document.fail(failure).catch((more: unknown) => process.stderr.write(`ditrun: ${messageOf(more)}\n`));
    return failure.exitCode;
  } finally {
    process.off("SIGXFSZ", ignore);
    stopListening();
  }
}

const namesOfFiles = { plan: modelOptions.plan, model: modelOptions.model };

function ignore(): void {}

function show(text: string): undefined {
  process.stdout.write(`${text}\n`);
}

const helpColumns = () => Math.min(120, process.stdout.columns || 120);
