import yargs from "yargs";
import { asDitrunError, DitrunError, exitCodes, messageOf } from "../failure.js";
import { checkOutputs, type NamedFile } from "../files/apart.js";
import { packageVersion } from "../version.js";
import { commands } from "./commands/index.js";
import { endOnInterrupt, interruption, unlessEnding } from "./interrupts.js";
import { JsonDocument } from "./json-document.js";
import { globalFiles } from "./named-files.js";
import { checkWords, expandHome, type GlobalArguments, globalOptions } from "./options.js";
import { Session } from "./session.js";
import { alternatives, usageMessage } from "./usage-message.js";

export interface Overrides {
  /** Another program for the workers, for those who use the launcher as a library. */
  entry?: string;
}

/** Runs one command line (without node and the script). Never throws. @returns the exit code. */
export async function main(argv: readonly string[], overrides: Overrides = {}): Promise<number> {
  let debug = false;
  // Also of a line that is not understood, as far as it says so.
  let document = new JsonDocument(withOptionalJsonFile(argv).includes("--json=") ? "" : undefined);
  const select = async () => {
    const selected = await parse(argv);
    if (selected) document = new JsonDocument(selected.options.json, selected.files);
    return selected;
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
    debug = selected.options.logLevel === "debug";
    await document.check();
    await checkOutputs(selected.files);
    const session = await Session.open(selected.options, document, overrides.entry);
    await unlessEnding();
    return await selected.run(session);
  } catch (error) {
    const failure = asDitrunError(error);
    const stack = debug && !(error instanceof DitrunError) && error instanceof Error ? `\n${error.stack}` : "";
    process.stderr.write(`ditrun: ${failure.message}${stack}\n`);
    await document.fail(failure).catch((more: unknown) => process.stderr.write(`ditrun: ${messageOf(more)}\n`));
    return failure.exitCode;
  } finally {
    process.off("SIGXFSZ", ignore);
    stopListening();
  }
}

function ignore(): void {}

interface Selected {
  options: GlobalArguments;
  /** That it names, but for the file of --json. */
  files: readonly NamedFile[];
  run(session: Session): Promise<number>;
}

const commandNames = commands.map(({ name }) => name);

/** @returns undefined when the line only asked for help or the version. @throws DitrunError when it is not understood. */
async function parse(argv: readonly string[]): Promise<Selected | undefined> {
  if (argv.includes("--")) throw new DitrunError("ERR_COMMAND_LINE", '"--" ends no options here: leave it out.');
  checkWords(argv);
  let selected: Selected | undefined;
  let parser = yargs()
    .scriptName("ditrun")
    .usage("$0 COMMAND [OPTIONS]\n\nThe torchrun of diffusion transformers.")
    .locale("en")
    .updateStrings({ "Options:": "Of every command:" })
    .options(globalOptions);
  for (const command of commands) {
    parser = command.register(parser, (options, files, run) => {
      selected = { options, files: [...globalFiles(options), ...files], run };
    });
    parser.example(command.example.command, command.example.describe);
  }
  await parser
    .demandCommand(1, `Name a command: ${alternatives(commandNames)}`)
    .strict()
    .version(packageVersion())
    .help()
    .alias("help", "h")
    .wrap(Math.min(120, process.stdout.columns || 120))
    .exitProcess(false)
    .fail((message, error) => {
      throw error instanceof DitrunError
        ? error
        : new DitrunError("ERR_COMMAND_LINE", usageMessage(message ?? messageOf(error), argv, commandNames));
    })
    .parseAsync(withOptionalJsonFile(expandHome(argv)));
  return selected;
}

/** `--json` takes a file only if one follows: not another option, and not the command. `-` is stdout, as everywhere. */
function withOptionalJsonFile(argv: readonly string[]): string[] {
  const names = commands.flatMap(({ name, subcommands = [] }) => [name, ...subcommands]);
  return argv.flatMap((word, index) => {
    const next = argv[index + 1];
    if (word === "-" && argv[index - 1] === "--json") return [];
    if (word === "--json=-") return ["--json="];
    const bare = word === "--json" && (next === undefined || next.startsWith("-") || names.includes(next));
    return [bare ? "--json=" : word];
  });
}
