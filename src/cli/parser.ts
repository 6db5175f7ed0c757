import yargs, { type Argv, type Options as YargsOptions } from "yargs";
import { DitrunError } from "../failure.js";
import { packageVersion } from "../version.js";
import type { Command } from "./command.js";
import type { Option, Options } from "./option.js";
import { hostsOptions } from "./options/hosts.js";
import { workerOptions } from "./options/launch.js";
import { modelOptions } from "./options/model.js";
import { outputOptions } from "./options/output.js";
import { givenTwice, noProgram } from "./usage-message.js";

declare module "yargs" {
  interface Argv {
    /** Which its types leave out. */
    usageConfiguration(settings: { readonly "hide-types": boolean }): this;
  }
}

/** Options that several commands share stand under these titles, after the command's own. */
const shared: readonly (readonly [title: string, options: Options])[] = [
  ["Model and plan:", modelOptions],
  ["Workers:", workerOptions],
  ["Hosts:", hostsOptions],
  ["Results and logs:", outputOptions],
];

/** What a line asks for. */
export type Parsed =
  /** Help or the version, to be shown. */
  | { readonly text: string }
  | {
      readonly command: Command;
      /** The options' texts by name. */
      readonly given: ReadonlyMap<string, readonly string[]>;
      /** The words of a program and its own, for a command that takes them. */
      readonly rest: readonly string[];
    };

/**
 * Reads a line of ditrun's own spelling. @param columns of the terminal, for help.
 * @throws DitrunError for what no command has; `command-line.ts` knows better words for it.
 */
export async function parse(words: readonly string[], commands: readonly Command[], columns: number): Promise<Parsed> {
  let parsed: Parsed | undefined;
  const choose = (command: Command, values: Readonly<Record<string, unknown>>) => {
    if (values["--"] !== undefined && command.rest === undefined && command.operands === undefined)
      throw new DitrunError("ERR_COMMAND_LINE", noProgram(command.name));
    parsed = { command, given: textsOf(command, values), rest: listOf(values["--"]) };
  };
  const parser = describeCommands(base(columns), commands, "", choose);
  await parser.parseAsync([...words], {}, (_error: unknown, _values: unknown, output: string) => {
    if (output !== "") parsed ??= { text: output };
  });
  if (parsed) return parsed;
  throw new DitrunError("ERR_COMMAND_LINE", "Name a command. See ditrun --help.");
}

function base(columns: number): Argv {
  return yargs()
    .scriptName("ditrun")
    .usage(`$0 COMMAND [OPTIONS]\n\nRuns diffusion transformers on one GPU or many. Version ${packageVersion()}.`)
    .locale("en")
    .parserConfiguration({
      "boolean-negation": false,
      "camel-case-expansion": false,
      "dot-notation": false,
      "parse-numbers": false,
      "parse-positional-numbers": false,
      "populate--": true,
    })
    .usageConfiguration({ "hide-types": true })
    .version(packageVersion())
    .help()
    .wrap(columns)
    .exitProcess(false)
    .fail((message, error) => {
      throw error ?? new DitrunError("ERR_COMMAND_LINE", `${message}. See ditrun --help.`);
    });
}

type Choose = (command: Command, values: Readonly<Record<string, unknown>>) => void;

/** Tells yargs the commands whose names begin with `path`: a command of two words is one of its first word's. */
function describeCommands(parser: Argv, commands: readonly Command[], path: string, choose: Choose): Argv {
  const next = (name: string) => name.slice(path.length).split(" ")[0] ?? "";
  const within = commands.filter(({ name }) => name.startsWith(path));
  for (const word of new Set(within.map(({ name }) => next(name)))) {
    const [first, ...others] = within.filter(({ name }) => next(name) === word);
    if (!first) continue;
    if (first.name === `${path}${word}` && others.length === 0) {
      parser.command(
        word,
        first.summary,
        (own) => describeOptions(own, first),
        (values) => choose(first, values),
      );
    } else {
      const actions = [first, ...others].map(({ name }) => name.slice(path.length + word.length + 1)).join(", ");
      parser.command(word, actions, (own) =>
        describeCommands(own.usage(`$0 ${path}${word} COMMAND [OPTIONS]`), commands, `${path}${word} `, choose),
      );
    }
  }
  // Not yargs' own examples: it would break their lines.
  parser.epilogue(["Examples:", ...within.map(({ example }) => `  ${example.line}`)].join("\n"));
  return parser.demandCommand(1, "Name a command").strict();
}

function describeOptions(parser: Argv, { name, summary, example, options, rest, operands }: Command): Argv {
  const words = operands !== undefined ? ` ${operands}` : rest === undefined ? "" : ` [--] ${rest}`;
  parser.usage(`$0 ${name} [OPTIONS]${words}\n\n${summary}.`);
  parser.epilogue(`Example: ${example.describe}\n  ${example.line}`);
  for (const [option, spec] of Object.entries(options)) parser.option(option, toYargs(spec));
  const names = Object.keys(options);
  const groups = shared.map(([title, group]) => [title, names.filter((each) => isOf(group, options[each]))] as const);
  const sharedNames = new Set(groups.flatMap(([, members]) => members));
  parser.group(
    names.filter((each) => !sharedNames.has(each)),
    "Of this command:",
  );
  for (const [title, members] of groups) parser.group(members, title);
  return parser.strict();
}

function isOf(group: Options, option: Option<unknown> | undefined): boolean {
  return option !== undefined && Object.values(group).includes(option);
}

/** Values stay texts: the option reads them. A switch is `true` or `false`. */
function toYargs({ letter, describe, value, mayBeBare, usual }: Option<unknown>): YargsOptions {
  const shown = value === undefined ? "" : `${mayBeBare ? `[${value}]` : value}: `;
  return {
    type: "string",
    describe: `${shown}${describe}${letter === undefined ? "" : ` (-${letter})`}${usual === undefined ? "" : ` [default: ${usual}]`}`,
    requiresArg: value !== undefined && !mayBeBare,
  };
}

function textsOf({ options }: Command, values: Readonly<Record<string, unknown>>): Map<string, readonly string[]> {
  const given = new Map<string, readonly string[]>();
  for (const [name, { repeats }] of Object.entries(options)) {
    const texts = listOf(values[name]);
    if (texts.length > 1 && !repeats) throw new DitrunError("ERR_OPTION_CONFLICT", givenTwice(name));
    if (texts.length > 0) given.set(name, texts);
  }
  return given;
}

function listOf(value: unknown): string[] {
  return value === undefined ? [] : [value].flat().map(String);
}
