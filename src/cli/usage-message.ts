import { nearest } from "../nearest.js";
import type { Command } from "./command.js";

/** `a, b or c`. */
export function alternatives(names: readonly string[]): string {
  return names.length < 2 ? (names[0] ?? "") : `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
}

/** Where more is said. @param name of a command. */
export function seeHelp(name = ""): string {
  return `See ditrun ${name === "" ? "" : `${name} `}--help.`;
}

const quoted = (text: string) => `"${text.replaceAll('"', "")}"`;

/** Options of one letter that other programs have. */
const letters: Readonly<Record<string, string>> = {
  ...{ "-p": "--prompt", "-v": "--version", "-V": "--version", "-n": "--nproc" },
  ...{ "-o": "--out", "-m": "--model", "-s": "--size" },
};

/** What those mean who leave an option out by --no-NAME. */
const leftOut: Readonly<Record<string, string>> = {
  "--no-negative-prompt": 'give --negative-prompt "" for an empty one, or --guide-scale 1 to leave it out',
};

/** An option that no command has. @param command of the line, if it is known. */
export function noOption(typed: string, command: Command | undefined, commands: readonly Command[]): string {
  const options = (command ? [command] : commands).flatMap((each) => Object.entries(each.options));
  const switches = options.filter(([, { value }]) => value === undefined).map(([name]) => `--no-${name}`);
  const names = [...options.map(([name]) => `--${name}`), "--help", "--version"];
  const letter = letters[typed];
  const known = letter !== undefined && names.includes(letter) ? letter : undefined;
  const meant = known ?? nearest(typed, /^--?no-/.test(typed) ? switches : names);
  const way = leftOut[typed] ?? (meant === undefined ? undefined : `did you mean ${meant}?`);
  return ended(`There is no option ${typed}`, way, command?.name);
}

function ended(what: string, way: string | undefined, name?: string): string {
  if (way === undefined) return `${what}. ${seeHelp(name)}`;
  return `${what}: ${way}${way.endsWith("?") ? "" : "."}`;
}

/** An option that takes effect once. @param name without dashes. */
export function givenTwice(name: string): string {
  return `--${name} is given twice, but takes effect once: leave one of them out.`;
}

/** A `--` where nothing comes to take what is after it. */
export function noProgram(command = ""): string {
  return `"--" ends no options here: leave it out. ${seeHelp(command)}`;
}

/** An option that other commands have. */
export function notTaken(name: string, command: Command): string {
  return `${command.name} takes no --${name}: leave it out.`;
}

/** Words of other programs for what ours do. */
const otherTasks: Readonly<Record<string, string>> = {
  ...{ t2v: "generate", run: "generate", bench: "profile", benchmark: "profile" },
};
const notSupported = /^(?:i2v|flf2v|vace|t2i|ti2v|s2v|animate)\b/i;
const script = /\.(?:py|pyc|sh|js|mjs|ts|pl|rb)$/;

/** A word where a command is expected. @param word if there is one. @param before it: the first word of a command of two. */
export function noCommand(word: string | undefined, before: string, commands: readonly Command[]): string {
  const prefix = before === "" ? "" : `${before} `;
  const names = commands.map(({ name }) => name).filter((name) => name.startsWith(prefix));
  const here = [...new Set(names.map((name) => name.slice(prefix.length).split(" ")[0] ?? ""))];
  if (word === undefined) {
    const what = before === "" ? "Name a command" : `Name what to do with ${before}`;
    return `${what}: ${alternatives(here)}. ${seeHelp(before)}`;
  }
  const what = `There is no command ${quoted(word)}${before === "" ? "" : ` of ${before}`}`;
  if (/^(?:help|version)$/.test(word)) return ended(what, `did you mean ditrun ${prefix}--${word}?`);
  if (before === "" && script.test(word)) return `${what}: ${scripts(commands)}.`;
  if (before !== "" && notSupported.test(word))
    return `${what}: only text-to-video is supported, which is ditrun ${prefix}${here[0]}.`;
  const theirs = otherTasks[word.toLowerCase()];
  const other = theirs !== undefined && here.includes(theirs) ? theirs : undefined;
  const meant = namesake(word, names, prefix) ?? other ?? nearest(word, here) ?? nearestLast(word, names);
  if (meant !== undefined) return ended(what, `did you mean ditrun ${meant.includes(" ") ? "" : prefix}${meant}?`);
  return `${what}: name ${alternatives(here)}. ${seeHelp(before)}`;
}

const lastWord = (name: string) => name.split(" ").at(-1) ?? name;

/** The command of two words whose second is the one typed. */
function namesake(word: string, names: readonly string[], prefix: string): string | undefined {
  return prefix === "" ? names.find((name) => name.includes(" ") && lastWord(name) === word.toLowerCase()) : undefined;
}

function nearestLast(word: string, names: readonly string[]): string | undefined {
  const last = nearest(word, names.map(lastWord));
  return names.find((name) => lastWord(name) === last);
}

/** What becomes of a script. */
function scripts(commands: readonly Command[]): string {
  const program = commands.find(({ rest }) => rest !== undefined);
  if (program === undefined) return "ditrun starts its own workers, and torchrun starts scripts";
  return `there is no such file either; ditrun ${program.name} starts programs`;
}

/** What is around a word that is not understood. */
export interface Around {
  /** The word before it. */
  readonly before: string | undefined;
  /** The option before it, if any. */
  readonly option: string | undefined;
  /** Whether the line has a prompt. */
  readonly hasPrompt: boolean;
}

/** A word after all that a command takes. */
export function notUnderstood(word: string, { before, option, hasPrompt }: Around, command: Command): string {
  const what = `${quoted(word)} is not understood${before === undefined ? "" : ` after ${before}`}`;
  if (option !== undefined && /prompt$/.test(option)) return `${what}: put the whole text of --${option} in quotes.`;
  if ("prompt" in command.options && !hasPrompt) return `${what}: did you mean --prompt ${quoted(word)}?`;
  return `${what}. ${seeHelp(command.name)}`;
}
