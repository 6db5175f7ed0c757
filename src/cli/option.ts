import { DitrunError } from "../failure.js";
import { homeFolder } from "../files/home-folder.js";
import { nearest } from "../nearest.js";

/** What completes an option's value in a shell, where it has no choices. */
export type Completion = "file" | "folder" | "plan" | "plans" | "model" | "check";

/** One option: what the line, its help and a shell know of it. `T` is what a command gets. */
export interface Option<T> {
  readonly describe: string;
  /** Another name, of one letter, after a single dash: only for a command that runs another program, as that one's users know it. */
  readonly letter?: string;
  /** Stands for the value in help, as N or FILE. A switch has none. */
  readonly value?: string;
  /** The value may be left out. */
  readonly mayBeBare?: boolean;
  /** All values, where they are few. */
  readonly choices?: readonly string[];
  /** What help says is taken where nothing is given. */
  readonly usual?: string;
  readonly completes?: Completion;
  /** It may be given several times. */
  readonly repeats?: boolean;
  /** Where nothing is given. */
  readonly otherwise: T;
  /** @param texts as given, at least one; one of an option that does not repeat. @param name with its dashes. @throws DitrunError */
  read(texts: readonly string[], name: string): T;
}

/** Options by their names, without dashes. */
export type Options = Readonly<Record<string, Option<unknown>>>;

type Camel<Name extends string> = Name extends `${infer First}-${infer Rest}`
  ? `${First}${Capitalize<Camel<Rest>>}`
  : Name;

/** What a command gets: each option by its name in camel case. */
export type Values<O extends Options> = {
  readonly [Name in keyof O & string as Camel<Name>]: O[Name] extends Option<infer T> ? T : never;
};

/** `a-name` as `aName`. */
export function camelCase(name: string): string {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}

/** What help says of an option, beside what its kind says. */
interface Words {
  readonly describe: string;
  readonly usual?: string;
  readonly value?: string;
  readonly completes?: Completion;
}

type Read<T> = (text: string, name: string) => T;

/** An option that may be left out. */
export function optional<T>(
  words: Words & { readonly choices?: readonly string[] },
  read: Read<T>,
): Option<T | undefined> {
  return withDefault(words, undefined, read);
}

/** An option with a value where it is left out. */
export function withDefault<T>(
  words: Words & { readonly choices?: readonly string[] },
  otherwise: T,
  read: Read<T>,
): Option<T> {
  return { value: "TEXT", ...words, otherwise, read: ([text = ""], name) => read(text, name) };
}

/** Refuses a value. */
export function refuse(name: string, text: string, what: string): never {
  throw new DitrunError("ERR_OPTION_VALUE", `${name} is "${text}"; it must be ${what}.`);
}

/** Any text, taken as it is. */
export const asText: Read<string> = (text) => text;

/** A path; `~` at its beginning is the home folder, as in a shell: one expands it only at the beginning of a word. */
export const asPath: Read<string> = (text) => (/^~(?:\/|$)/.test(text) ? `${homeFolder()}${text.slice(1)}` : text);

/** A whole number. */
export function whole(least: number, most = Number.MAX_SAFE_INTEGER): Read<number> {
  return (text, name) => {
    const value = Number(text);
    if (text.trim() !== "" && Number.isInteger(value) && value >= least && value <= most) return value;
    return refuse(name, text, `a whole number ${value > most ? `from ${least} to ${most}` : `of at least ${least}`}`);
  };
}

/** A number. @param what it must be, in words. */
export function decimal(allowed: (value: number) => boolean, what: string): Read<number> {
  return (text, name) => {
    const value = Number(text);
    return text.trim() !== "" && Number.isFinite(value) && allowed(value) ? value : refuse(name, text, what);
  };
}

/** One of a few names. @param instead what to say of values that others use. */
export function oneOf<T extends string>(
  choices: readonly T[],
  instead: Readonly<Record<string, string>> = {},
): Read<T> {
  return (text, name) => {
    const found = choices.find((choice) => choice === text);
    if (found !== undefined) return found;
    const meant = instead[text.toLowerCase()] ?? meantBy(text, choices);
    throw new DitrunError(
      "ERR_OPTION_VALUE",
      `${name} is "${text}"; it must be one of ${choices.join(", ")}${meant === undefined ? "" : `: ${meant}`}.`,
    );
  };
}

function meantBy(text: string, choices: readonly string[]): string | undefined {
  const name = nearest(text, choices);
  return name === undefined ? undefined : `did you mean ${name}`;
}

/** A choice that may be left out. */
export function choice<T extends string>(
  choices: readonly T[],
  words: Words,
  instead?: Readonly<Record<string, string>>,
): Option<T | undefined> {
  return optional({ value: choices.join("|"), choices, ...words }, oneOf(choices, instead));
}

/** A choice with a default. */
export function choiceOr<T extends string>(
  otherwise: T,
  choices: readonly T[],
  words: Words,
  instead?: Readonly<Record<string, string>>,
): Option<T> {
  return withDefault(
    { value: choices.join("|"), choices, usual: otherwise, ...words },
    otherwise,
    oneOf(choices, instead),
  );
}

/** A path that may be left out. */
export function path(value: string, completes: Completion, words: Words): Option<string | undefined> {
  return optional({ value, completes, ...words }, asPath);
}

/** A switch, off unless it is given. */
export function flag(describe: string): Option<boolean> {
  return { describe, otherwise: false, read: asSwitch };
}

/** A switch that may be left to something else. */
export function maybe(describe: string): Option<boolean | undefined> {
  return { describe, otherwise: undefined, read: asSwitch };
}

function asSwitch([text = ""]: readonly string[], name: string): boolean {
  if (text === "true" || text === "false") return text === "true";
  throw new DitrunError(
    "ERR_OPTION_VALUE",
    `${name} is "${text}"; it takes no value: give ${name} or ${name.replace(/^--/, "--no-")}.`,
  );
}

/**
 * The values of options. @param given texts by name, without dashes; those of other options are left alone.
 * @throws DitrunError for the first value that an option cannot have, in the order of the line.
 */
export function readOptions<O extends Options>(
  options: O,
  given: ReadonlyMap<string, readonly string[]>,
  instead: Readonly<Record<string, unknown>> = {},
): Values<O> {
  const values: Record<string, unknown> = {};
  for (const [name, option] of Object.entries(options)) values[camelCase(name)] = option.otherwise;
  Object.assign(values, instead);
  for (const [name, texts] of given) {
    const option = options[name];
    if (option) values[camelCase(name)] = option.read(texts, `--${name}`);
  }
  if (hasAll(options, values)) return values;
  throw new Error("An option has no value.");
}

function hasAll<O extends Options>(options: O, values: Readonly<Record<string, unknown>>): values is Values<O> {
  return Object.keys(options).every((name) => camelCase(name) in values);
}
