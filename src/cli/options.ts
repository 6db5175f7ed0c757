import type { ArgumentsCamelCase, InferredOptionTypes, Options } from "yargs";
import { deviceNames } from "../engine/choose-device.js";
import { DitrunError } from "../failure.js";
import { homeFolder } from "../files/home-folder.js";
import { logLevels } from "../launcher/logs.js";
import { attentionDtypeSchema, dtypeSchema, mostWorkers } from "../plan/schema.js";
import { largestSeed } from "../protocol/seed.js";

/** Checks a number typed on the command line; yargs itself turns text into NaN. */
export function wholeNumber(
  name: string,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): (text: string | undefined) => number | undefined {
  return (text) => {
    if (text === undefined) return undefined;
    const value = Number(text);
    if (text.trim() === "" || !Number.isInteger(value) || value < least || value > most) {
      const limit = value > most ? `from ${least} to ${most}` : `of at least ${least}`;
      throw new DitrunError("ERR_OPTION_VALUE", `--${name} is "${text}"; it must be a whole number ${limit}.`);
    }
    return value;
  };
}

/** A seed; -1n asks for one to be drawn. @throws DitrunError for what is neither. */
function parseSeed(text: string): bigint {
  if (text === "-1") return -1n;
  if (/^\d+$/.test(text) && BigInt(text) <= largestSeed) return BigInt(text);
  throw new DitrunError(
    "ERR_OPTION_VALUE",
    `--seed is "${text}"; it must be a whole number from 0 to ${largestSeed}, or -1 to draw one.`,
  );
}

function degree(name: string, describe: string) {
  return { type: "string", requiresArg: true, describe, coerce: wholeNumber(name, 1, mostWorkers) } as const;
}

/** Options of every command; they may stand before or after it. */
export const globalOptions = {
  nproc: {
    type: "string",
    requiresArg: true,
    describe: "Workers on this host: a number, gpu (one per GPU) or auto (all GPUs, or what the plan needs)",
    coerce: (text: string | undefined) => {
      if (text === undefined || text === "auto" || text === "gpu") return text;
      return wholeNumber("nproc", 1, mostWorkers)(text);
    },
  },
  cfg: degree("cfg", "Guidance parallel degree"),
  cp: degree("cp", "Context parallel degree: workers that share the tokens"),
  tp: degree("tp", "Tensor parallel degree: workers that share heads and hidden columns"),
  plan: { type: "string", requiresArg: true, describe: "Parallelism plan: a name in configs/plans or FILE.yaml" },
  model: {
    type: "string",
    requiresArg: true,
    describe: "Model: a name in configs/models or FILE.yaml; wan: 1.4B, 14B or tiny",
  },
  device: { choices: deviceNames, requiresArg: true, default: "auto", describe: "What to run on" },
  dtype: {
    choices: dtypeSchema.options,
    requiresArg: true,
    describe: "Weights and activations [default: the plan's, bf16]",
  },
  fp8: {
    type: "boolean",
    describe: "Linear layers, self-attention and its ring in e4m3 (plan files choose part by part)",
  },
  attention: {
    choices: attentionDtypeSchema.options,
    requiresArg: true,
    describe:
      "Self-attention's operands and its ring; fp16 for the DiT [default: the plan's, --dtype, with --fp8 e4m3]",
  },
  seed: {
    type: "string",
    requiresArg: true,
    default: "0",
    describe: "Seed of random weights, inputs and noise: 64 bits, or -1 to draw one",
    coerce: parseSeed,
  },
  timeout: {
    type: "string",
    requiresArg: true,
    default: "120",
    describe: "Seconds that any wait for other workers may take",
    coerce: (text: string) => {
      const seconds = Number(text);
      if (!(seconds > 0 && seconds <= 86_400)) {
        throw new DitrunError(
          "ERR_OPTION_VALUE",
          `--timeout is "${text}"; it must be a number of seconds above 0 and at most 86400.`,
        );
      }
      return seconds;
    },
  },
  "master-port": {
    type: "string",
    requiresArg: true,
    describe: "Port of the rendezvous on 127.0.0.1 [default: MASTER_PORT, else any free one]",
    coerce: (text: string | undefined) => portNumber("--master-port", text),
  },
  "log-level": { choices: logLevels, requiresArg: true, default: "info", describe: "What the launcher says on stderr" },
  "log-dir": {
    type: "string",
    requiresArg: true,
    describe: "Folder for launcher.log and each rank's stdout and stderr",
  },
  json: { type: "string", describe: "Print one JSON document on stdout, or write it to a file: --json [FILE]" },
  "dry-run": {
    type: "boolean",
    default: false,
    describe: "Check everything and say what would run, without running it",
  },
} as const satisfies Record<string, Options>;

/** All options that take no value, of every command and of one. */
export const switches = ["fp8", "dry-run", "baseline", "download", "overwrite", "verify", "help", "version"] as const;

/**
 * What yargs would take without a word: any value of a switch but true for false, `--no-NAME` of an option that takes a value for
 * false, and several values of an option that takes one. @throws DitrunError for each.
 */
export function checkWords(argv: readonly string[]): void {
  const seen = new Set<string>();
  for (const word of argv) {
    const [, no = "", typed = "", value] = /^--(no-)?([\w-]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (typed === "") continue;
    // yargs knows every option in camel case too.
    const name = typed.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    const isSwitch = switches.some((known) => known === name);
    if (isSwitch && value !== undefined && value !== "true" && value !== "false") {
      throw new DitrunError(
        "ERR_OPTION_VALUE",
        `--${name} is "${value}"; it takes no value: give --${name} or --no-${name}.`,
      );
    }
    if (no !== "" && !isSwitch)
      throw new DitrunError("ERR_COMMAND_LINE", `There is no option --no-${name}.${insteadOf[name] ?? ""}`);
    if (seen.has(name) && !repeatable.includes(name))
      throw new DitrunError(
        "ERR_OPTION_CONFLICT",
        `--${name} is given twice, but takes effect once: leave one of them out.`,
      );
    seen.add(name);
  }
}

/** Options that may be given several times. */
const repeatable: readonly string[] = ["prompt"];

/** What those mean who leave an option out by --no-NAME. */
const insteadOf: Readonly<Record<string, string>> = {
  "negative-prompt": ' Give --negative-prompt "" for an empty one, or --guide-scale 1 to leave it out.',
};

/** Options whose value is no path, whatever it begins with. */
const texts: readonly string[] = ["prompt", "negative-prompt"];

/**
 * Puts the home folder in place of `~` where an option's value begins with it: a shell does so only at the beginning of a word, not in
 * `--out=~/video.mp4`. @throws DitrunError where there is no home folder.
 */
export function expandHome(argv: readonly string[]): string[] {
  return argv.map((word, index) => {
    const [, name, joined] = /^--([\w-]+)=(~(?:\/.*)?)$/s.exec(word) ?? [];
    const [, before] = /^--([\w-]+)$/.exec(argv[index - 1] ?? "") ?? [];
    const path = joined ?? (before !== undefined && /^~(?:\/|$)/.test(word) ? word : undefined);
    const option = name ?? before;
    if (path === undefined || option === undefined || texts.includes(option)) return word;
    const value = `${homeFolder()}${path.slice(1)}`;
    return joined === undefined ? value : `--${name}=${value}`;
  });
}

/** Above the options of one command in its --help; those of every command come after them. */
export const ownOptions = "Of this command:";

export type GlobalOptions = InferredOptionTypes<typeof globalOptions>;
export type GlobalArguments = ArgumentsCamelCase<GlobalOptions>;

/** @throws DitrunError when the text is not a port. */
export function portNumber(name: string, text: string | undefined): number | undefined {
  if (text === undefined || text === "") return undefined;
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535) {
    throw new DitrunError("ERR_OPTION_VALUE", `${name} is "${text}"; it must be a port from 0 to 65535.`);
  }
  return port;
}
