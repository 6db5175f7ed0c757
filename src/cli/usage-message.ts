import { nearest } from "../nearest.js";
import type { Command } from "./command.js";

/** `a, b or c`. */
export function alternatives(names: readonly string[]): string {
  return names.length < 2 ? (names[0] ?? "") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
}

/** Where more is said. @param name of a command. */
export function seeHelp(name?: string): string {
  return `See ditrun ${name === undefined || name === "" ? "" : `${name} `}--help.`;
}

const quoted = (text: string) => `"${text.replaceAll('"', "")}"`;

/** Options of one letter that other programs have. */
const letters: Readonly<Record<string, string>> = {
  ...{ "-p": "prompt", "-v": "version", "-V": "version", "-n": "nproc", "-o": "out", "-m": "model", "-s": "seed" },
};

/** Options that no command has. @param command of the line, if it is known. */
export function noOption(typed: string, command: Command | undefined, commands: readonly Command[]): string {
  const options = (command ? [command] : commands).flatMap((each) => Object.entries(each.options));
  const names = options.flatMap(([name, { value }]) =>
    value === undefined ? [`--${name}`, `--no-${name}`] : [`--${name}`],
  );
  const letter = letters[typed];
  const meant = letter
    ? `--${letter}`
    : /^--?no-/.test(typed)
      ? nearestNo(typed, names)
      : nearest(typed, [...names, "--help", "--version"]);
  const instead =
    typed === "--no-negative-prompt"
      ? ': give --negative-prompt "" for an empty one, or --guide-scale 1 to leave it out.'
      : undefined;
  return `There is no option ${typed}${instead ?? (meant === undefined ? `. ${seeHelp(command?.name)}` : `: did you mean ${meant}?`)}`;
}

const nearestNo = (typed: string, names: readonly string[]) =>
  nearest(
    typed,
    names.filter((name) => name.startsWith("--no-")),
  );

/** An option of other commands. */
export function otherCommands(name: string, typed: string, command: Command, commands: readonly Command[]): string {
  const others = commands.filter(({ options }) => name in options).map((each) => each.name);
  return `${command.name} takes no ${typed.replace(/^--.*/, `--${name}`)}, which is of ${alternatives(others)}: leave it out.`;
}

/** A word where a command is expected. @param word if there is one. @param before it: the first word of a command of two. */
export function noCommand(word: string | undefined, before: string, commands: readonly Command[]): string {
  const names = commands.map(({ name }) => name);
  const here = [
    ...new Set(
      names
        .filter((name) => before === "" || name.startsWith(`${before} `))
        .map((name) => name.slice(before === "" ? 0 : before.length + 1).split(" ")[0] ?? ""),
    ),
  ];
  if (word === undefined)
    return `${before === "" ? "Name a command" : `Name what to do with ${before}`}: ${alternatives(here)}. ${seeHelp(before)}`;
  const of = before === "" ? "" : ` of ${before}`;
  const seconds = before === "" ? names.filter((name) => name.includes(" ")) : [];
  const second = nearest(
    word,
    seconds.map((name) => name.split(" ")[1] ?? ""),
  );
  const first = nearest(word, here);
  const meant = first ?? (second === undefined ? undefined : seconds.find((name) => name.endsWith(` ${second}`)));
  if (meant !== undefined)
    return `There is no command ${quoted(word)}${of}: did you mean ditrun ${before === "" ? "" : `${before} `}${meant}?`;
  return `There is no command ${quoted(word)}${of}: name ${alternatives(here)}. ${seeHelp(before)}`;
}

/** A word after all that a command takes. @param before the word on the line before it. @param option the line's last one. */
export function notUnderstood(
  word: string,
  before: string | undefined,
  _option: string | undefined,
  command: Command,
): string {
  const after = before === undefined ? "" : ` after ${before}`;
  return `${quoted(word)} is not understood${after}. ${seeHelp(command.name)}`;
}
