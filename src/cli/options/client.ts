import { asPath, asText, decimal, type Option, optional, path, type Values, whole, withDefault } from "../option.js";
import { generateOptions } from "./generate.js";
import { readSeed } from "./model.js";
import { outputOptions } from "./output.js";
import { videoOptions } from "./video.js";

const theirs = "the server's";

interface NamedLora {
  readonly name: string;
  readonly scale: number;
}

/** NAME or NAME:X. */
const lora: Option<readonly NamedLora[]> = {
  ...{ value: "NAME[:X]", repeats: true, otherwise: [] },
  describe: "A LoRA of the server's --lora-dir, with a strength (1); given again, one more",
  read: (texts) =>
    texts.map((text) => {
      const [, name, scale] = /^(.+):(-?[\d.]+)$/.exec(text) ?? [];
      return name === undefined || Number.isNaN(Number(scale))
        ? { name: text, scale: 1 }
        : { name, scale: Number(scale) };
    }),
};

/** Of every command that calls a server. */
export const clientOptions = {
  url: withDefault(
    { value: "URL", describe: "Where the server is", usual: "http://127.0.0.1:8000" },
    "http://127.0.0.1:8000",
    asText,
  ),
  "api-key-file": path("FILE", "file", {
    describe: "The server's key in its first line",
    usual: "DITRUN_API_KEY, else none",
  }),
  json: outputOptions.json,
  quiet: outputOptions.quiet,
  "log-level": outputOptions["log-level"],
} satisfies Record<string, Option<unknown>>;

const out = {
  out: withDefault(
    {
      ...{ value: "FILE", completes: "file" },
      describe: "FILE.mp4; where that is there already, the next free number is taken",
      usual: "video.mp4",
    },
    "video.mp4",
    asPath,
  ),
  overwrite: { ...generateOptions.overwrite, describe: "Replace what --out names" },
} satisfies Record<string, Option<unknown>>;

/** Of `ditrun client generate`. */
export const clientGenerateOptions = {
  prompt: optional({ value: "TEXT", describe: "What the video should show, in quotes" }, asText),
  "negative-prompt": { ...generateOptions["negative-prompt"], usual: theirs },
  size: { ...videoOptions.size, describe: "Pixels; one of the server's sizes", usual: theirs },
  frames: { ...videoOptions.frames, usual: theirs },
  fps: optional({ value: "N", describe: "Frames per second", usual: theirs }, whole(1, 1000)),
  steps: { ...generateOptions.steps, usual: theirs },
  shift: { ...generateOptions.shift, describe: "Above 1: more of the steps at high noise", usual: theirs },
  "guide-scale": { ...generateOptions["guide-scale"], describe: "How much the prompt counts", usual: theirs },
  seed: optional(
    { value: "N", describe: "64 bits: the same seed makes the same video; -1 draws one", usual: "drawn by the server" },
    readSeed,
  ),
  lora,
  "lora-2": { ...lora, describe: "The same for the second transformer of Wan 2.2 A14B" },
  deadline: optional(
    { value: "SECONDS", describe: "The video fails unless it is done so soon, the queue included", usual: "none" },
    decimal((value) => value > 0, "a number of seconds above 0"),
  ),
  ...out,
  ...clientOptions,
} satisfies Record<string, Option<unknown>>;

/** Of `ditrun client list`. */
export const clientListOptions = {
  limit: withDefault({ value: "N", describe: "Videos, the newest first", usual: "20" }, 20, whole(1, 10_000)),
  ...clientOptions,
} satisfies Record<string, Option<unknown>>;

/** Of `ditrun client download`. */
export const clientDownloadOptions = { ...out, ...clientOptions } satisfies Record<string, Option<unknown>>;

export type ClientOptions = Values<typeof clientOptions>;
export type ClientGenerateOptions = Values<typeof clientGenerateOptions>;
export type ClientListOptions = Values<typeof clientListOptions>;
export type ClientDownloadOptions = Values<typeof clientDownloadOptions>;
