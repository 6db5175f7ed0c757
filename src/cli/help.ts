import { packageVersion } from "../version.js";
import type { Command } from "./command.js";
import type { Option, Options } from "./option.js";
import { launchOptions } from "./options/launch.js";
import { modelOptions } from "./options/model.js";
import { outputOptions } from "./options/output.js";

/** Options that several commands share stand under these titles, after the command's own. */
const shared: readonly (readonly [title: string, options: Options])[] = [
  ["Model and plan:", modelOptions],
  ["Workers:", launchOptions],
  ["Results and logs:", outputOptions],
];

/**
 * The text of --help. @param path a command's name, the first word of several, or "" for all.
 * @param columns of the terminal.
 */
export function helpText(path: string, commands: readonly Command[], columns: number): string {
  const command = commands.find(({ name }) => name === path);
  if (command) return commandHelp(command, columns);
  const listed = commands.filter(({ name }) => path === "" || name.startsWith(`${path} `));
  const rows = listed.map(({ name, summary }): Row => [name, summary]);
  return [
    `ditrun ${path === "" ? "" : `${path} `}COMMAND [OPTIONS]`,
    ...(path === "" ? [`Runs diffusion transformers on one GPU or many. Version ${packageVersion()}.`] : []),
    section("Commands:", rows, columns),
    section(
      "Options:",
      [
        ["--help", "Of ditrun, or of a command: ditrun COMMAND --help"],
        ["--version", "Of ditrun"],
      ],
      columns,
    ),
    ["Examples:", ...listed.map(({ example }) => `  ${example.line}`)].join("\n"),
  ].join("\n\n");
}

function commandHelp({ name, summary, example, options, rest }: Command, columns: number): string {
  const isShared = (option: Option<unknown>) => shared.some(([, group]) => Object.values(group).includes(option));
  const titled = shared.map(([title, group]) => {
    const names = Object.entries(options).filter(([, option]) => Object.values(group).includes(option));
    return [title, names] as const;
  });
  const own = Object.entries(options).filter(([, option]) => !isShared(option));
  return [
    `ditrun ${name} [OPTIONS]${rest === undefined ? "" : ` [--] ${rest}`}`,
    wrapped(`${summary}.`, columns).join("\n"),
    ...[["Options:", own] as const, ...titled].flatMap(([title, entries]) =>
      entries.length === 0 ? [] : [section(title, entries.map(optionRow), columns)],
    ),
    `Example: ${example.describe}\n  ${example.line}`,
  ].join("\n\n");
}

type Row = readonly [left: string, right: string];

function optionRow([name, { value, mayBeBare, describe, usual }]: [string, Option<unknown>]): Row {
  const shown = value === undefined ? "" : mayBeBare ? ` [${value}]` : ` ${value}`;
  return [`--${name}${shown}`, `${describe}${usual === undefined ? "" : ` [default: ${usual}]`}`];
}

/** The widest left column; what is longer has a line of its own. */
const MOST_LEFT = 26;

function section(title: string, rows: readonly Row[], columns: number): string {
  const fitting = rows.map(([left]) => left.length).filter((length) => length <= MOST_LEFT);
  const width = Math.max(0, ...fitting) + 2;
  const lines = rows.flatMap(([left, right]) => {
    const parts = wrapped(right, columns - width - 2);
    const fits = left.length + 2 <= width;
    const [first = "", ...more] = fits ? parts : ["", ...parts];
    return [`  ${fits ? left.padEnd(width) : left}${first}`, ...more.map((part) => `  ${" ".repeat(width)}${part}`)];
  });
  return [title, ...lines].join("\n");
}

/** A text in lines of at most so many columns; a longer word has a line of its own. */
function wrapped(text: string, columns: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= columns) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
