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
  /** The same of the second transformer, where there are two. */
  readonly lowGuideScale?: number;
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
/** Where the second transformer of Wan 2.2 T2V-A14B takes over, of the 1000 time steps. */
export const publishedBoundary = 0.875;

/** Wan2.2, generate.py and wan/configs/wan_t2v_A14B.py. */
const t2vA14b = {
  ...t2v1b,
  name: "2.2-T2V-A14B",
  config: "wan-2.2-t2v-a14b",
  repositories: ["Wan-AI/Wan2.2-T2V-A14B", "Wan-AI/Wan2.2-T2V-A14B-Diffusers"],
  size: "1280*720",
  steps: 40,
  shift: 12,
  guideScale: 4,
  lowGuideScale: 3,
} as const satisfies WanPreset;
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
  "2.2-t2v-a14b": t2vA14b,
  tiny,
};

/** The names that messages offer. */
export const presetNames: readonly string[] = ["1.4B", "14B", "2.2-T2V-A14B", "tiny"];

/**
 * The preset that --model names: 1.4B, 1.3B, 14B, 2.2-T2V-A14B or tiny, also as wan-1.3b, t2v-1.3B, t2v-A14B or
 * Wan-AI/Wan2.1-T2V-1.3B-Diffusers, a repository, which is then looked for first. Undefined for anything else.
 */
export function presetOf(model: string): WanPreset | undefined {
  const name = model.toLowerCase();
  const [, repository, size = ""] =
    /^(wan-ai\/)?(?:wan(?:2\.1)?-)?(?:t2v-)?([\d.]+b|tiny)(?:-diffusers)?$/.exec(name) ??
    /^(wan-ai\/)?(?:wan-?)?(?:2\.2-)?(t2v-a14b)(?:-diffusers)?$/.exec(name) ??
    [];
  const key = size === "t2v-a14b" ? "2.2-t2v-a14b" : size;
  const preset = Object.hasOwn(presets, key) ? presets[key] : undefined;
  if (!preset || repository === undefined) return preset;
  const named = preset.repositories.find((each) => each.toLowerCase() === model.toLowerCase());
  return named === undefined
    ? undefined
    : { ...preset, repositories: [named, ...preset.repositories.filter((each) => each !== named)] };
}

/** For help: what a setting is where nothing is given, and which models have another. */
export function usualOf(setting: "size" | "frames" | "steps" | "shift" | "guideScale"): string {
  const own = (preset: WanPreset) => {
    const value = { ...published, ...preset }[setting];
    return setting === "guideScale" && preset.lowGuideScale !== undefined ? `${preset.lowGuideScale},${value}` : value;
  };
  const others = [t2v14b, t2vA14b, tiny].filter((preset) => own(preset) !== own(t2v1b));
  return [`${own(t2v1b)}`, ...others.map((preset) => `${preset.name}: ${own(preset)}`)].join("; ");
}

/** How a model is sampled where nothing else is said. */
export interface UsualSampling {
  readonly steps: number;
  readonly shift?: number | undefined;
  readonly guideScale?: number | undefined;
  /** Of the second of two transformers. */
  readonly low?: { readonly boundary: number; readonly guideScale: number };
}

/** The same of this model, as its authors publish it. @param boundary of a model with two transformers, which may be of any sizes. */
export function usualSampling(preset: WanPreset | undefined, boundary: number | undefined): UsualSampling {
  if (boundary === undefined) return preset ?? published;
  const { steps, shift, guideScale } = preset ?? t2vA14b;
  return { steps, shift, guideScale, low: { boundary, guideScale: preset?.lowGuideScale ?? t2vA14b.lowGuideScale } };
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
