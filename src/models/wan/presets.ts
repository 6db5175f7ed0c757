import { tinyCheckpoint } from "../../paths.js";

/** A model as users name it, and the settings that its authors publish for it. */
export interface WanPreset {
  /** As in --model, for messages. */
  readonly name: string;
  /** Its sizes, in configs/models. */
  readonly config: string;
  /** Repositories that hold its checkpoint, the one to download first. */
  readonly repositories: readonly [string, ...string[]];
  /** A checkpoint that comes with the package. */
  readonly bundled?: string;
  readonly size: string;
  readonly frames: number;
  readonly steps: number;
  /** How much the prompt counts; where none is given, as in `published`. */
  readonly guideScale?: number;
  /** Above 1, more of the steps at high noise; where none is given, as in `published`. */
  readonly shift?: number;
}

/** Wan2.1, generate.py: 50 steps, 81 frames; the larger size is only for the larger model. */
const t2v1b: WanPreset = {
  name: "1.4B",
  config: "wan-1.3b",
  repositories: ["Wan-AI/Wan2.1-T2V-1.3B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"],
  size: "832*480",
  frames: 81,
  steps: 50,
};
const t2v14b: WanPreset = {
  ...t2v1b,
  name: "14B",
  config: "wan-14b",
  repositories: ["Wan-AI/Wan2.1-T2V-14B", "Wan-AI/Wan2.1-T2V-14B-Diffusers"],
  size: "1280*720",
};
/** Measured by bench/quality.ts: of 60 prompts it shows 60, and with the published guidance and shift 55. */
const tiny: WanPreset = {
  ...t2v1b,
  name: "tiny",
  config: "wan-tiny",
  bundled: tinyCheckpoint,
  size: "96*96",
  frames: 17,
  steps: 10,
  guideScale: 4,
  shift: 3,
};

/** By what --model says in small letters. */
export const presets: Readonly<Record<string, WanPreset>> = {
  "1.4b": t2v1b,
  "1.3b": { ...t2v1b, name: "1.3B" },
  "14b": t2v14b,
  tiny,
};

/** The names that messages offer. */
export const presetNames: readonly string[] = ["1.4B", "14B", "tiny"];

/**
 * The preset that --model names: 1.4B, 1.3B, 14B or tiny, also as wan-1.3b, t2v-1.3B or Wan-AI/Wan2.1-T2V-1.3B-Diffusers, a
 * repository, which is then looked for first. Undefined for anything else.
 */
export function presetOf(model: string): WanPreset | undefined {
  const [, repository, size = ""] =
    /^(wan-ai\/)?(?:wan(?:2\.1)?-)?(?:t2v-)?([\d.]+b|tiny)(?:-diffusers)?$/.exec(model.toLowerCase()) ?? [];
  const preset = Object.hasOwn(presets, size) ? presets[size] : undefined;
  if (!preset || repository === undefined) return preset;
  const named = preset.repositories.find((each) => each.toLowerCase() === model.toLowerCase());
  return named === undefined
    ? undefined
    : { ...preset, repositories: [named, ...preset.repositories.filter((each) => each !== named)] };
}

/** For help: what a setting is where nothing is given, and which models have another. */
export function usualOf(setting: "size" | "frames" | "steps" | "shift" | "guideScale"): string {
  const own = (preset: WanPreset) => ({ ...published, ...preset })[setting];
  const others = [t2v14b, tiny].filter((preset) => own(preset) !== own(t2v1b));
  return [`${own(t2v1b)}`, ...others.map((preset) => `${preset.name}: ${own(preset)}`)].join("; ");
}

/** Wan2.1, generate.py and wan/configs/shared_config.py. */
export const published = {
  size: "832*480",
  frames: 81,
  steps: 50,
  solver: "unipc",
  shift: 5,
  guideScale: 5,
  fps: 16,
  negativePrompt:
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走",
} as const;
