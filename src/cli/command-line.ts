import { statSync } from "node:fs";
import { DitrunError } from "../failure.js";
import { type Foreign, foreignOption } from "./aliases.js";
import type { Command } from "./command.js";
import type { Option } from "./option.js";
import { givenTwice, noCommand, noOption, noProgram, notTaken, notUnderstood } from "./usage-message.js";

interface OptionWord {
  readonly kind: "option";
  readonly typed: string;
  /** The option's own name; undefined for one that no command has. */
  readonly name: string | undefined;
  /** Undefined where a value is missing. */
  readonly text: string | undefined;
  readonly foreign?: Foreign;
  readonly index: number;
}

interface PlainWord {
  readonly kind: "plain";
  readonly text: string;
  readonly index: number;
}

/** A command line by its words, whether they make sense or not. */
export interface Line {
  readonly options: readonly OptionWord[];
  readonly words: readonly PlainWord[];
  readonly rest: readonly string[];
  /** The place of `--` where nothing comes to take what is after it. */
  readonly dashes: number | undefined;
}

const builtIn: readonly string[] = ["help", "version"];

/** Splits a line into options with their values and plain words, as people write them. Options may stand before the command. */
export function readLine(argv: readonly string[], commands: readonly Command[]): Line {
  const known = new Map(commands.flatMap(({ options }) => Object.entries(options)));
  const program = commands.find(({ rest }) => rest !== undefined);
  const heads = new Set(commands.flatMap(({ name }) => name.split(" ")));
  const options: OptionWord[] = [];
  const words: PlainWord[] = [];
  const operands: string[] = [];
  const path = () => words.map(({ text }) => text).join(" ");
  const line = (rest: readonly string[], dashes?: number): Line => ({ options, words, rest, dashes });

  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? "";
    const takesRest = program !== undefined && path() === program.name;
    const takesOperands = commands.some(({ name, operands }) => operands !== undefined && name === path());
    if (word === "--")
      return line([...operands, ...argv.slice(index + 1)], takesRest || takesOperands ? undefined : index);
    if (!/^-[^\d.]/.test(word)) {
      if (takesRest) return line(argv.slice(index));
      if (takesOperands) {
        operands.push(word);
        continue;
      }
      if (program && words.length === 0 && !heads.has(word) && isFile(word)) {
        words.push({ kind: "plain", text: program.name, index });
        return line(argv.slice(index));
      }
      words.push({ kind: "plain", text: word, index });
      continue;
    }
    const option = (takesRest && readLetter(word, index, program)) || readOption(word, index, known);
    options.push(option);
    const spec = option.foreign && "side" in option.foreign ? side : known.get(option.name ?? "");
    if (!spec || option.text !== undefined) continue;
    const next = argv[index + 1];
    const isValue =
      next !== undefined && takesNext(spec, next, heads) && !((takesRest || takesOperands) && spec.mayBeBare);
    if (isValue) index++;
    const bare = spec.value === undefined ? "true" : spec.mayBeBare ? "" : undefined;
    const text = !isValue ? bare : spec.value === undefined ? next.toLowerCase() : next;
    options[options.length - 1] = { ...option, text };
  }
  return line(operands);
}

const side: Pick<Option<unknown>, "value" | "mayBeBare"> = { value: "N" };

const isFile = (word: string) => statSync(word, { throwIfNoEntry: false })?.isFile() ?? false;

/** Whether the word after an option is its value. */
function takesNext(
  { value, mayBeBare }: Pick<Option<unknown>, "value" | "mayBeBare">,
  next: string,
  heads: ReadonlySet<string>,
): boolean {
  if (value === undefined) return /^(?:true|false)$/i.test(next);
  return /^(?:-?$|[^-]|-[\d.])/.test(next) && !(mayBeBare && heads.has(next));
}

/** `-m`, `-r 3`, `-r3` or `-r=3` of a command that has options of one letter. */
function readLetter(word: string, index: number, { options }: Command): OptionWord | undefined {
  const [, letter, rest] = /^-([a-z])(?:=?(.+))?$/s.exec(word) ?? [];
  const [name, spec] = Object.entries(options).find((each) => letter !== undefined && each[1].letter === letter) ?? [];
  if (spec === undefined || (spec.value === undefined && rest !== undefined)) return undefined;
  return { kind: "option", typed: `-${letter}`, name, text: rest, index };
}

function readOption(word: string, index: number, known: ReadonlyMap<string, Option<unknown>>): OptionWord {
  const [, typed = word, inline] = /^(--?[^=]+)(?:=(.*))?$/s.exec(word) ?? [];
  const named = (name: string | undefined, text = inline, foreign?: Foreign): OptionWord => ({
    ...{ kind: "option", typed, name, text, index },
    ...(foreign && { foreign }),
  });
  if (typed === "-h") return named("help");
  if (!typed.startsWith("--")) return named(undefined);
  // Underscores as argparse's programs have them, and names as a program's fields.
  const name = typed
    .slice(2)
    .replace(/([a-z\d])([A-Z])/g, "$1-$2")
    .replaceAll("_", "-")
    .toLowerCase();
  if (known.has(name) || builtIn.includes(name)) return named(name);
  const positive = name.replace(/^no-/, "");
  const spec = known.get(positive);
  if (positive !== name && spec && spec.value === undefined)
    return named(
      positive,
      inline === undefined ? "false" : inline === "true" ? "false" : inline === "false" ? "true" : inline,
    );
  const foreign = foreignOption(name);
  return named(foreign && "to" in foreign ? foreign.to : undefined, inline, foreign);
}

/** Whether the line asks for a document on stdout, as far as it is understood. */
export function wantsJson({ options }: Line): boolean {
  return options.some(({ name, text }) => name === "json" && (text === "" || text === "-"));
}

/** What a line asks for whose command takes the words of a program; undefined for any other line, and for one with a mistake. */
export function programLine(line: Line, argv: readonly string[], commands: readonly Command[]) {
  const { options, words, rest } = line;
  const { command } = findCommand(words, commands);
  const asksElse = options.some(({ name }) => name !== undefined && builtIn.includes(name));
  if (command?.rest === undefined || asksElse || mistakeIn(line, argv, commands) !== undefined) return undefined;
  const given = options.map(({ name = "", text = "" }) => [name, [text]] as const);
  return { command, given: new Map<string, readonly string[]>(given), rest };
}

/**
 * The line in ditrun's own spelling: the command, each option as `--name=value`, and after `--` the words of a program. What is no
 * option of ditrun's stays as it was typed.
 */
export function spelled({ options, words, rest }: Line): string[] {
  const sides = new Map(
    options.flatMap((each) => (each.foreign && "side" in each.foreign ? [[each.foreign.side, each]] : [])),
  );
  const size = sizeOf(sides, new Set(options.map(({ name }) => name)));
  const named = options.map(({ typed, name, text, foreign }) => {
    if (foreign && "side" in foreign && size && "text" in size)
      return foreign.side === "width" ? `--size=${size.text}` : [];
    if (name === undefined) return typed;
    const own = foreign && "to" in foreign && text !== undefined ? foreign.value?.(text) : undefined;
    return text === undefined || builtIn.includes(name) ? `--${name}` : `--${name}=${own ?? text}`;
  });
  return [...words.map(({ text }) => text), ...named.flat(), ...(rest.length > 0 ? ["--", ...rest] : [])];
}

/** What is wrong with a line that asks for help on a command that there is not. */
export function unknownTopic({ options, words }: Line, commands: readonly Command[]): DitrunError | undefined {
  const { used, sentence } = findCommand(words, commands);
  const asks = options.some(({ name }) => name === "help") && words[used] !== undefined;
  return asks && sentence !== undefined ? new DitrunError("ERR_COMMAND_LINE", sentence) : undefined;
}

/** The first mistake of a line that is not understood, with what was probably meant. */
export function mistakeIn(line: Line, argv: readonly string[], commands: readonly Command[]): DitrunError | undefined {
  const { options, words } = line;
  const mistakes: { index: number; sentence: string; code?: "ERR_OPTION_CONFLICT" }[] = [];
  const { command, used, sentence } = findCommand(words, commands);
  if (sentence !== undefined) mistakes.push({ index: words[used]?.index ?? argv.length, sentence });

  const given = new Set<string>();
  const sides = new Map<string, OptionWord>();
  for (const option of options) {
    const { typed, name, text, foreign, index } = option;
    if (name !== undefined && builtIn.includes(name)) continue;
    const spec = name === undefined ? undefined : command?.options[name];
    if (foreign && "side" in foreign && (command === undefined || "size" in command.options)) {
      sides.set(foreign.side, option);
    } else if (name === undefined) {
      const instead = foreign && "sentence" in foreign ? foreign.sentence : noOption(typed, command, commands);
      mistakes.push({ index, sentence: instead });
    } else if (command && !spec) {
      mistakes.push({ index, code: "ERR_OPTION_CONFLICT", sentence: notTaken(name, command) });
    } else if (text === undefined) {
      const value = `${typed}=VALUE`;
      mistakes.push({ index, sentence: `${typed} needs a value; one that begins with a dash is written ${value}.` });
    } else if (given.has(name) && !spec?.repeats) {
      mistakes.push({ index, code: "ERR_OPTION_CONFLICT", sentence: givenTwice(name) });
    } else {
      given.add(name);
    }
  }
  const size = sizeOf(sides, given);
  if (size && "sentence" in size) mistakes.push(size);
  if (command) {
    const hasPrompt = given.has("prompt");
    for (const { text, index } of words.slice(used)) {
      const option = options.findLast(
        (each) => each.index < index && each.index > (words[used - 1]?.index ?? -1),
      )?.name;
      mistakes.push({ index, sentence: notUnderstood(text, { before: argv[index - 1], option, hasPrompt }, command) });
    }
  }
  if (line.dashes !== undefined) mistakes.push({ index: line.dashes, sentence: noProgram(command?.name) });
  const [first] = mistakes.sort((a, b) => a.index - b.index);
  return first && new DitrunError(first.code ?? "ERR_COMMAND_LINE", first.sentence);
}

/** The command that the plain words name. @returns how many of them name it, and else what is wrong with the next one. */
function findCommand(
  words: readonly PlainWord[],
  commands: readonly Command[],
): { command?: Command; used: number; sentence?: string } {
  let prefix = "";
  for (const [index, { text }] of words.entries()) {
    const longer = prefix === "" ? text : `${prefix} ${text}`;
    const command = commands.find(({ name }) => name === longer);
    if (command) return { command, used: index + 1 };
    if (!commands.some(({ name }) => name.startsWith(`${longer} `)))
      return { used: index, sentence: noCommand(text, prefix, commands) };
    prefix = longer;
  }
  return { used: words.length, sentence: noCommand(undefined, prefix, commands) };
}

/** --width and --height are together what --size is; undefined where neither is given. */
function sizeOf(
  sides: ReadonlyMap<string, OptionWord>,
  given: ReadonlySet<string | undefined>,
): { text: string } | { index: number; sentence: string } | undefined {
  const [width, height] = [sides.get("width"), sides.get("height")];
  const first = width ?? height;
  if (!first) return undefined;
  if (width?.text === undefined || height?.text === undefined || given.has("size"))
    return { index: first.index, sentence: "--width W and --height H go together: give both, or --size W*H alone." };
  return { text: `${width.text}*${height.text}` };
}
