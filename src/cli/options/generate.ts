import type { LoraFile } from "../../formats/lora.js";
import { type GuideScale, samplingPresets } from "../../models/wan/few-steps.js";
import { published, publishedBoundary, usualOf } from "../../models/wan/presets.js";
import type { VaeDtype } from "../../plan/schema.js";
import type { WanGenerateTask } from "../../protocol/job.js";
import {
  asPath,
  asText,
  choice,
  choiceOr,
  decimal,
  flag,
  type Option,
  optional,
  path,
  refuse,
  type Values,
  whole,
  withDefault,
} from "../option.js";
import { reportOptions } from "./report.js";
import { videoOptions } from "./video.js";

const solvers: readonly WanGenerateTask["sampling"]["solver"][] = ["unipc", "dpm++", "euler", "renoise"];
const vaeDtypes: readonly VaeDtype[] = ["fp32", "bf16", "fp16"];
const noises: readonly NonNullable<WanGenerateTask["generator"]>[] = ["ditrun", "torch-cpu", "torch-cuda"];

const prompt: Option<readonly string[] | undefined> = {
  value: "TEXT",
  repeats: true,
  describe: "What the video should show, in quotes; given again, another video of the same load",
  otherwise: undefined,
  read: (texts) => texts,
};

const loras = (describe: string): Option<readonly LoraFile[]> => ({
  ...{ value: "FILE[:X]", completes: "file", repeats: true, describe, otherwise: [] },
  read: (texts, name) => texts.map((text) => readLora(text, name)),
});

/** A number after the last colon is the strength. @throws DitrunError for one behind a file's name that is no number. */
function readLora(text: string, name: string): LoraFile {
  const [, named, strength] = /^(.+):([^:/]*)$/.exec(text) ?? [];
  if (named === undefined || strength === undefined) return { file: asPath(text, name), strength: 1 };
  const value = Number(strength);
  if (strength.trim() !== "" && Number.isFinite(value)) return { file: asPath(named, name), strength: value };
  if (/\.(?:safetensors|pth?|ckpt|bin)$/.test(named))
    refuse(name, text, "FILE or FILE:STRENGTH, such as style.safetensors:0.8");
  return { file: asPath(text, name), strength: 1 };
}

/** @throws DitrunError for what is no list of numbers. */
function readSigmas(text: string, name: string): readonly number[] {
  const levels = text.split(",").map((each) => (each.trim() === "" ? Number.NaN : Number(each)));
  return levels.every(Number.isFinite)
    ? levels
    : refuse(name, text, "numbers with commas between them, such as 1,0.75,0.5");
}

const scale = decimal((value) => value >= 0 && value <= 1000, "a number from 0 to 1000");

/** One scale, or those for low and for high noise. @throws DitrunError for anything else. */
function readGuideScale(text: string, name: string): GuideScale {
  const [low, high, more] = text.split(",");
  if (low === undefined || high === undefined) return scale(text, name);
  if (more !== undefined) refuse(name, text, "one number, or LOW,HIGH for two transformers, such as 3,4");
  return [scale(low, name), scale(high, name)];
}

/** Of `ditrun wan generate`. */
export const generateOptions = {
  prompt,
  prompts: path("FILE", "file", {
    describe: "A prompt a line, each for a video; blank lines and lines that start with # do not count",
  }),
  "negative-prompt": optional(
    { value: "TEXT", describe: "What it should not show", usual: "the published one" },
    asText,
  ),
  ...videoOptions,
  steps: optional({ value: "N", describe: "Sampling steps", usual: usualOf("steps") }, whole(1)),
  solver: choice(solvers, {
    describe: "How to sample; euler and renoise are for distilled models",
    usual: published.solver,
  }),
  shift: optional(
    {
      value: "X",
      describe: "Above 1: more of the steps at high noise; the authors advise 8 to 12 for 1.4B",
      usual: usualOf("shift"),
    },
    decimal((value) => value > 0, "a number above 0"),
  ),
  "guide-scale": optional(
    {
      value: "X",
      describe:
        "How much the prompt counts; 1 leaves out the negative prompt; LOW,HIGH for two transformers; the authors advise 6 for 1.4B",
      usual: usualOf("guideScale"),
    },
    readGuideScale,
  ),
  boundary: optional(
    {
      value: "X",
      describe: "Of two transformers: the second takes over below this part of the 1000 time steps",
      usual: `the checkpoint's, else ${publishedBoundary}`,
    },
    decimal((value) => value > 0 && value < 1, "a number between 0 and 1"),
  ),
  preset: choice(samplingPresets, {
    describe: "How a distilled model is sampled: solver, steps and guidance 1, where no option says otherwise",
    usual: "by the names of --transformer and --lora, else none",
  }),
  sigmas: optional(
    {
      value: "LIST",
      describe: "Noise level before each step, such as 1,0.9375,0.8333,0.625: in place of --steps and --shift",
    },
    readSigmas,
  ),
  "initial-scale": optional(
    { value: "X", describe: "What the initial noise is multiplied with; rCM: its first noise level", usual: "1" },
    decimal((value) => value > 0 && value <= 1000, "a number above 0, of at most 1000"),
  ),
  "bf16-steps": optional(
    {
      value: "N",
      describe: "With --fp8: leave the first N and the last N steps in bf16; the weights are held twice",
      usual: "0",
    },
    whole(0),
  ),
  lora: loras("LoRA file, laid over the weights with this strength (1); given again, one more"),
  "lora-2": loras("The same for the second transformer of Wan 2.2 A14B; --lora is for the first, of high noise"),
  "vae-dtype": choice(vaeDtypes, {
    describe:
      "What the VAE computes in; fp16 is eight times finer than bf16 at 1.05 times the time, up to values of a million",
    usual: "the plan's, else fp16; with --dtype fp32 fp32",
  }),
  fps: optional(
    { value: "X", describe: "Frames per second", usual: `${published.fps}` },
    decimal((value) => value >= 1 && value <= 1000, "a number from 1 to 1000"),
  ),
  out: withDefault(
    {
      value: "FILE",
      completes: "file",
      describe:
        "FILE.mp4, or FOLDER/ for PNG frames; where that is there already, and for each prompt after the first, the next free number is taken",
      usual: "video.mp4",
    },
    "video.mp4",
    asPath,
  ),
  overwrite: flag("Replace what --out and --dump name; prompt N replaces number N"),
  metadata: {
    ...flag("Tell prompt, seed, plan and settings in the video's metadata; --no-metadata leaves them out"),
    otherwise: true,
    usual: "on",
  },
  "ckpt-dir": path("FOLDER", "folder", {
    describe: "Folder with the checkpoint: published, diffusers or ComfyUI's; or a repository in the cache",
    usual: "the Hugging Face cache",
  }),
  transformer: path("FILE", "file", {
    describe: "The transformer's file, of any kind that docs/files.md lists",
    usual: "the checkpoint's",
  }),
  "transformer-2": path("FILE", "file", {
    describe: "The same for the second transformer of Wan 2.2 A14B, that for low noise",
    usual: "the checkpoint's",
  }),
  "text-encoder": path("FILE", "file", { describe: "The same for umT5", usual: "the checkpoint's" }),
  vae: path("FILE", "file", { describe: "The same for the VAE", usual: "the checkpoint's" }),
  download: flag("Download the checkpoint into the cache if it is not there"),
  verify: flag("Hash every file of a checkpoint in the cache before it is used"),
  weights: choiceOr("checkpoint", ["checkpoint", "random"], {
    describe: "random: a full size without any file, to measure",
  }),
  memory: optional(
    { value: "GIB", describe: "Device memory that each worker may use", usual: "what is free" },
    decimal((value) => value > 0 && value <= 1e6, "a number of GiB above 0 and at most 1000000"),
  ),
  noise: choice(noises, {
    describe: "What --seed draws: torch-cpu as ComfyUI, torch-cuda as the published code on an H100 or H200",
    usual: "ditrun",
  }),
  "init-noise": path("FILE", "file", {
    describe: "Initial noise: FILE.safetensors[:TENSOR]; the tensor is noise where it is not named",
  }),
  ...reportOptions,
  dump: path("FILE", "file", {
    describe: "Write context, context_null, latent.N and video to FILE.safetensors, of prompt N to FILE-N.safetensors",
  }),
} satisfies Record<string, Option<unknown>>;

export type GenerateOptions = Values<typeof generateOptions>;
