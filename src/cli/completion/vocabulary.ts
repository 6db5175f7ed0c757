import { readdirSync } from "node:fs";
import { basename } from "node:path";
import { checkNames, sections } from "../../doctor/names.js";
import { presetNames } from "../../models/wan/presets.js";
import { modelsDirectory, plansDirectory } from "../../paths.js";
import type { Command } from "../command.js";
import type { Option } from "../option.js";

/** Of `ditrun doctor --only`. */
const doctorNames: readonly string[] = [...Object.keys(sections), ...checkNames];

/** What a shell offers for a value: names, and perhaps files or folders too. */
export interface Offer {
  readonly names: readonly string[];
  readonly files: "none" | "files" | "folders";
  /** Several names, with commas between them. */
  readonly commas: boolean;
}

export interface OptionEntry {
  readonly name: string;
  readonly describe: string;
  /** Undefined for a switch. */
  readonly offer: Offer | undefined;
  /** The value is the next word, always. */
  readonly takesNext: boolean;
}

export interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  readonly options: readonly OptionEntry[];
}

/** What a shell completes, with the names of plans and models that ship. */
export function vocabularyOf(commands: readonly Command[]): CommandEntry[] {
  const plans = documentsIn(plansDirectory);
  const models = [...presetNames, ...documentsIn(modelsDirectory)];
  const offerOf = ({ choices, completes }: Option<unknown>): Offer => {
    const named = { plan: plans, plans, model: models, check: doctorNames, file: [], folder: [] };
    const names = choices ?? (completes === undefined ? [] : named[completes]);
    const files =
      completes === undefined || completes === "check" ? "none" : completes === "folder" ? "folders" : "files";
    return { names, files, commas: completes === "plans" };
  };
  return commands.map(({ name, summary, options }) => ({
    ...{ name, summary },
    options: Object.entries(options).map(([option, spec]) => ({
      ...{ name: option, describe: spec.describe },
      offer: spec.value === undefined ? undefined : offerOf(spec),
      takesNext: spec.value !== undefined && spec.mayBeBare !== true,
    })),
  }));
}

function documentsIn(folder: string): string[] {
  const files = readdirSync(folder).filter((file) => file.endsWith(".yaml"));
  return files.map((file) => basename(file, ".yaml")).sort();
}

/** Options of all commands that take the next word as their value. */
export function takingNext(entries: readonly CommandEntry[]): string[] {
  const options = entries.flatMap(({ options }) => options).filter(({ takesNext }) => takesNext);
  return [...new Set(options.map(({ name }) => `--${name}`))];
}

/** A command's options as they are typed; those of all commands for "". */
export function optionWords(entries: readonly CommandEntry[], path: string): string[] {
  const options = entries.filter(({ name }) => path === "" || name === path).flatMap((each) => each.options);
  return [...new Set(options.map(({ name }) => `--${name}`)), "--help", ...(path === "" ? ["--version"] : [])];
}

/** The words that may follow a path, with what each is. */
export function nextWords(entries: readonly CommandEntry[], path: string): Map<string, string> {
  const prefix = path === "" ? "" : `${path} `;
  const words = new Map<string, string>();
  for (const { name, summary } of entries) {
    const [word, more] = name.startsWith(prefix) ? name.slice(prefix.length).split(" ") : [];
    if (word !== undefined && name !== path) words.set(word, more === undefined ? summary : `${word} commands`);
  }
  return words;
}

/** Beginnings of commands that are none themselves, "" the first of them. */
export function pathsOf(entries: readonly CommandEntry[]): string[] {
  const heads = entries.flatMap(({ name }) => (name.includes(" ") ? [name.split(" ")[0] ?? ""] : []));
  return ["", ...new Set(heads)];
}

/** What to offer after an option, and after which: `*` where all commands that have it agree. */
export function offers(entries: readonly CommandEntry[]): { at: string; option: string; offer: Offer }[] {
  const all = entries.flatMap(({ name, options }) =>
    options.flatMap((option) => (option.offer ? [{ at: name, option: `--${option.name}`, offer: option.offer }] : [])),
  );
  const same = (a: Offer, b: Offer) => JSON.stringify(a) === JSON.stringify(b);
  const agreed = all.filter(({ option, offer }) => all.every((o) => o.option !== option || same(o.offer, offer)));
  const once = new Map(agreed.map((each) => [each.option, { ...each, at: "*" }]));
  return [...once.values(), ...all.filter(({ option }) => !once.has(option))];
}
