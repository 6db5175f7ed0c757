import { basename, dirname, join } from "node:path";
import { DitrunError } from "../../failure.js";
import { readMetadata } from "../../formats/metadata.js";
import type { Sampling } from "../../protocol/job.js";
import { published, type UsualSampling } from "./presets.js";

/** How a distilled model is sampled: few steps, and one forward each. */
interface FewSteps {
  /** What it is, for people. */
  readonly what: string;
  readonly solver: Sampling["solver"];
  readonly steps: number;
  readonly shift: number;
  /** Noise levels that no shift gives. */
  readonly sigmas?: readonly number[];
  readonly initialScale?: number;
  /** Of the names of its files and their folders. */
  readonly names: RegExp;
}

const shifted = (shift: number, sigma: number) => (shift * sigma) / (1 + (shift - 1) * sigma);

/** A time of TrigFlow, an angle, as a noise level: sin / (sin + cos) (rCM, arXiv 2510.08431). */
const ofAngle = (angle: number) => Math.sin(angle) / (Math.sin(angle) + Math.cos(angle));

/** The largest of rCM's noises in TrigFlow: σ 80, by its tangent. */
const rcmSigmas = [Math.atan(80), 1.5, 1.4, 1].map(ofAngle);

/** The last of the 1000 training levels, from which AccVideo's 50 steps are spread evenly, and every fifth is taken. */
const accLeast = shifted(5, 1e-3);
const accSigmas = Array.from({ length: 10 }, (_, i) => shifted(5, 1 - ((1 - accLeast) * 5 * i) / 49));

/** The steps 1000, 757 and 522 of DMD2, by the nearest entry of the 1000 levels of shift 8. */
const causvidSigmas = [1, 0.28, 0.12].map((level) => shifted(8, level));

/** By what --preset says. */
const presets = {
  "lightx2v-4step": {
    what: "a LightX2V distillation of 4 steps",
    ...{ solver: "euler", steps: 4, shift: 5 },
    // LightX2V's own quantised files of the undistilled model have no steps in their names.
    names: /lightx2v.*step|step[-_ ]?distill|cfg[-_ ]?distill/i,
  },
  "lightning-4step": {
    what: "a Lightning distillation of 4 steps",
    ...{ solver: "euler", steps: 4, shift: 5 },
    names: /lightning|seko/i,
  },
  "accvideo-10step": {
    what: "AccVideo, a distillation of 10 steps",
    ...{ solver: "euler", steps: 10, shift: 5, sigmas: accSigmas },
    names: /accvid/i,
  },
  "causvid-3step": {
    what: "CausVid, a distillation of 3 steps",
    ...{ solver: "renoise", steps: 3, shift: 8, sigmas: causvidSigmas },
    names: /causvid/i,
  },
  "rcm-4step": {
    what: "an rCM distillation of 4 steps",
    ...{ solver: "renoise", steps: 4, shift: 5, sigmas: rcmSigmas },
    initialScale: rcmSigmas[0] ?? 1,
    names: /(?:^|[^a-z])rcm(?:[^a-z]|$)/i,
  },
} as const satisfies Record<string, FewSteps>;

export const fewStepNames = [
  "lightx2v-4step",
  "lightning-4step",
  "accvideo-10step",
  "causvid-3step",
  "rcm-4step",
] as const satisfies readonly (keyof typeof presets)[];
/** `none`: as the model's authors sample, whatever its files are called. */
export const samplingPresets = [...fewStepNames, "none"] as const;
export type SamplingPreset = (typeof samplingPresets)[number];

/** The preset that a file's name, or its folder's, tells of; undefined for most. */
export function presetOfFile(path: string): Exclude<SamplingPreset, "none"> | undefined {
  const folder = dirname(path);
  // diffusers' own folder says nothing, and the repository's is above it.
  const named = basename(folder) === "transformer" ? dirname(folder) : folder;
  const told = join(basename(named), basename(path));
  return fewStepNames.find((name) => presets[name].names.test(told));
}

/** What files say of themselves that may name a distillation; what they were made from or trained on does not. */
const titles = ["modelspec.title", "ss_output_name", "name", "title", "loras", "converted_from"];

/** The preset that a file's metadata tell of: a LoRA that was renamed, or merged into a converted file. Undefined for most. */
export function presetOfMetadata(
  metadata: ReadonlyMap<string, string | number>,
): Exclude<SamplingPreset, "none"> | undefined {
  const told = titles.map((key) => metadata.get(key) ?? "").join("\n");
  return fewStepNames.find((name) => presets[name].names.test(told));
}

/** What somebody asks of sampling; all of it may be left out. */
export interface AskedSampling {
  readonly preset?: SamplingPreset | undefined;
  readonly solver?: Sampling["solver"] | undefined;
  readonly steps?: number | undefined;
  readonly shift?: number | undefined;
  /** Of both transformers where there are two, or of that for low and that for high noise. */
  readonly guideScale?: GuideScale | undefined;
  /** Where the second of two transformers takes over, of the 1000 time steps. */
  readonly boundary?: number | undefined;
  readonly sigmas?: readonly number[] | undefined;
  readonly initialScale?: number | undefined;
}

/** How much the prompt counts: in all steps, or in those of the transformer for low and of that for high noise, in the order of Wan 2.2. */
export type GuideScale = number | readonly [low: number, high: number];

/**
 * How to sample: as asked, else as a preset says, which is asked for or told by a file's name, else as the model's authors publish it.
 * @param usual the model's own settings. @param files of weights that may be distilled. Where no name tells, their metadata may.
 * @returns with it a sentence where a file has decided.
 * @throws DitrunError where noise levels and steps, or noise levels and a shift, contradict each other.
 */
export function chooseSampling(
  asked: AskedSampling,
  usual: UsualSampling,
  files: readonly string[],
): { readonly sampling: Sampling; readonly told?: string } {
  const found = asked.preset === undefined ? distillationIn(files) : undefined;
  const name = found?.preset ?? asked.preset;
  const preset: FewSteps | undefined = name === undefined || name === "none" ? undefined : presets[name];
  const sampling = samplingOf(asked, preset, usual);
  if (!found || !preset) return { sampling };
  const { solver, steps, guideScale } = sampling;
  const told = `${found.file} is by its ${found.by} ${preset.what}: it is sampled with ${solver}, steps ${steps}, guidance ${guideScale}, unless options say otherwise; the preset none leaves it.`;
  return { sampling, told };
}

/** The first file that is distilled by its name, else by its metadata. */
function distillationIn(files: readonly string[]) {
  for (const [by, presetOf] of [
    ["name", presetOfFile],
    ["metadata", (file: string) => presetOfMetadata(readMetadata(file))],
  ] as const)
    for (const file of files) {
      const preset = presetOf(file);
      if (preset !== undefined) return { file, preset, by };
    }
  return undefined;
}

function samplingOf(asked: AskedSampling, preset: FewSteps | undefined, usual: UsualSampling): Sampling {
  const sigmas = asked.sigmas ?? preset?.sigmas;
  const whose = asked.sigmas ? "The noise levels given" : `The noise levels of ${preset?.what}`;
  if (sigmas && asked.steps !== undefined && asked.steps !== sigmas.length)
    throw new DitrunError(
      "ERR_SAMPLING",
      `${whose} make ${sigmas.length} steps, not ${asked.steps}: leave out the steps, or give levels (sigmas) for them.`,
    );
  if (sigmas && asked.shift !== undefined)
    throw new DitrunError("ERR_SAMPLING", `${whose} are not shifted: leave out the shift ${asked.shift}.`);
  const [lowScale, highScale] = scalesOf(asked, usual);
  const low = usual.low && {
    boundary: asked.boundary ?? usual.low.boundary,
    guideScale: lowScale ?? (preset ? 1 : usual.low.guideScale),
  };
  const initialScale = asked.initialScale ?? (asked.sigmas ? undefined : preset?.initialScale);
  return {
    solver: asked.solver ?? preset?.solver ?? (asked.sigmas ? "euler" : published.solver),
    steps: sigmas?.length ?? asked.steps ?? preset?.steps ?? usual.steps,
    shift: asked.shift ?? preset?.shift ?? usual.shift ?? published.shift,
    guideScale: highScale ?? (preset ? 1 : (usual.guideScale ?? published.guideScale)),
    ...(low && { low }),
    ...(sigmas && { sigmas: [...sigmas] }),
    ...(initialScale !== undefined && { initialScale }),
  };
}

/** @throws DitrunError for settings of two transformers where there is one. */
function scalesOf(
  { guideScale, boundary }: AskedSampling,
  { low }: UsualSampling,
): readonly [low?: number, high?: number] {
  if (!low && boundary !== undefined)
    throw new DitrunError(
      "ERR_SAMPLING",
      `The boundary ${boundary} is between two transformers, and this model has one: leave it out.`,
    );
  if (typeof guideScale === "number") return [guideScale, guideScale];
  if (guideScale === undefined) return [];
  if (low) return guideScale;
  throw new DitrunError(
    "ERR_SAMPLING",
    `The guidance ${guideScale.join(",")} is of two transformers, and this model has one: give one number.`,
  );
}
