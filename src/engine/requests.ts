import { resolve } from "node:path";
import { DitrunError } from "../failure.js";
import type { LoraFile } from "../formats/lora.js";
import type { WanModel } from "../models/schema.js";
import { chooseSampling, type GuideScale, type SamplingPreset } from "../models/wan/few-steps.js";
import { published, usualSampling, type WanPreset } from "../models/wan/presets.js";
import { bytesAsTokens, checkPrompt, type TokenizerThread } from "../models/wan/text/texts.js";
import { checkFrames, latentOf, parseSize } from "../models/wan/video-size.js";
import { isUnguided } from "../protocol/expert.js";
import type { noiseGenerators, WanGenerateTask } from "../protocol/job.js";
import { seedOf } from "../protocol/seed.js";
import { samplingPlan } from "../sampling/scheduler.js";

export type { LoraFile } from "../formats/lora.js";

/** A video to be made. What is left out is as the model's authors publish it. */
export interface VideoRequest {
  readonly prompt: string;
  readonly negativePrompt?: string | undefined;
  /** Pixels, each a multiple of 16. */
  readonly width?: number | undefined;
  readonly height?: number | undefined;
  /** 4n + 1. */
  readonly frames?: number | undefined;
  readonly steps?: number | undefined;
  /** `euler` and `renoise` are for distilled models. */
  readonly solver?: WanGenerateTask["sampling"]["solver"] | undefined;
  /** Above 1: more of the steps at high noise. */
  readonly shift?: number | undefined;
  /** The noise level before each step, from at most 1 downwards: in place of steps and shift. */
  readonly sigmas?: readonly number[] | undefined;
  /** What the initial noise is multiplied with; 1 unless given. */
  readonly initialScale?: number | undefined;
  /** How a distilled model is sampled, where nothing else says otherwise; by default what the names of its files tell. */
  readonly preset?: SamplingPreset | undefined;
  /** Laid over the transformer's weights for this video, instead of the engine's; of two, over that for high noise. */
  readonly loras?: readonly LoraFile[] | undefined;
  /** The same over the transformer for low noise. */
  readonly loras2?: readonly LoraFile[] | undefined;
  /** How much the prompt counts; 1 leaves the negative prompt out. For two transformers also that of low and of high noise. */
  readonly guideScale?: GuideScale | undefined;
  /** Where the second of two transformers takes over, of the 1000 time steps. */
  readonly boundary?: number | undefined;
  /** 0 to 2^64 - 1; 0 by default. */
  readonly seed?: bigint | number | undefined;
  /** Whose random numbers the seed stands for. */
  readonly noise?: (typeof noiseGenerators)[number] | undefined;
  /** The initial noise itself, float32 [channels, latent frames, height / 8, width / 8] of a safetensors file. */
  readonly initNoise?: { readonly file: string; readonly tensor: string } | undefined;
  /** In a plan with fp8, so many of the first and of the last steps in bf16. */
  readonly bf16Steps?: number | undefined;
  /** A safetensors file for texts, latents after each step, and the video in float32. */
  readonly dump?: string | undefined;
}

/** What a request shares with all others of its engine. */
export interface RequestBase extends Pick<WanGenerateTask, "model" | "plan" | "weights"> {
  readonly preset: WanPreset | undefined;
  /** Without one a text's bytes are its tokens. */
  readonly tokenizer: TokenizerThread | undefined;
  readonly memoryBytes: number | undefined;
  /** Of requests that name none. */
  readonly loras: readonly LoraFile[];
  readonly loras2: readonly LoraFile[];
  readonly samplingPreset: SamplingPreset | undefined;
}

/** The same files from any folder. */
export function absolute(loras: readonly LoraFile[]): { file: string; strength: number }[] {
  return loras.map(({ file, strength }) => ({ file: resolve(file), strength }));
}

/** How a request is sampled, and a sentence where a file's name has decided. @throws DitrunError for settings that no schedule has. */
export function samplingFor(
  request: Omit<VideoRequest, "prompt">,
  base: { readonly model: Pick<WanModel, "boundary"> } & Pick<
    RequestBase,
    "preset" | "weights" | "loras" | "loras2" | "samplingPreset"
  >,
) {
  const { model, preset, weights, loras, loras2, samplingPreset } = base;
  const own = [...(request.loras ?? loras), ...(request.loras2 ?? loras2)].map(({ file }) => file);
  const files = weights.from === "checkpoint" ? [...own, weights.transformer] : own;
  const asked = { ...request, preset: request.preset ?? samplingPreset };
  const chosen = chooseSampling(asked, usualSampling(preset, model.boundary), files);
  samplingPlan(chosen.sampling);
  return chosen;
}

/** The task that makes the video. @throws DitrunError when there is no such video: its size, frames, steps, seed or texts. */
export async function taskOf(request: VideoRequest, base: RequestBase): Promise<WanGenerateTask> {
  const { model, plan, weights, preset, tokenizer, memoryBytes } = base;
  const size = sizeOf(request, preset);
  const { sampling } = samplingFor(request, base);
  const loras = request.loras ?? base.loras;
  const loras2 = request.loras2 ?? base.loras2;
  requireTwo(model, loras2);
  if (isUnguided(sampling) && plan.mesh.cfg > 1) {
    throw new DitrunError(
      "ERR_PLAN_MESH",
      `A guideScale of 1 leaves out the negative prompt, so cfg must be 1, but it is ${plan.mesh.cfg}: open the engine with the LoRA or the preset, which makes it cp, or with another plan.`,
    );
  }
  checkPrompt(request.prompt, "The prompt");
  const ids = await idsOf(request, model, tokenizer);
  const { noise, initNoise, bf16Steps, dump } = request;
  return {
    ...{ kind: "wan-generate", model, plan, weights, ids, size },
    ...{ sampling, seed: seedOf(BigInt(request.seed ?? 0)) },
    ...(loras.length > 0 && { loras: absolute(loras) }),
    ...(loras2.length > 0 && { loras2: absolute(loras2) }),
    ...(noise !== undefined && { generator: noise }),
    ...(initNoise !== undefined && { noise: initNoise }),
    ...(bf16Steps !== undefined && bf16Steps > 0 && { bf16Steps }),
    ...(memoryBytes !== undefined && { memoryBytes }),
    ...(dump !== undefined && { dump, replace: false }),
  };
}

/** @throws DitrunError for LoRAs of a second transformer, or its file, where there is none. */
export function requireTwo(
  { name, boundary }: Pick<WanModel, "name" | "boundary">,
  loras2: readonly LoraFile[],
  transformer2?: string,
): void {
  const [lora] = loras2;
  if (boundary !== undefined) return;
  const second = `is for the second transformer of Wan 2.2 A14B, and ${name} has one`;
  if (transformer2 !== undefined)
    throw new DitrunError("ERR_OPTION_CONFLICT", `--transformer-2 ${transformer2} ${second}: leave it out.`);
  if (lora !== undefined)
    throw new DitrunError("ERR_OPTION_CONFLICT", `--lora-2 ${lora.file} ${second}: give it to --lora.`);
}

/** The latent of the request's video. @throws DitrunError as parseSize and checkFrames. */
function sizeOf({ width, height, frames }: VideoRequest, preset: WanPreset | undefined) {
  const usual = parseSize(preset?.size ?? published.size);
  const size = parseSize(`${width ?? usual.width}*${height ?? usual.height}`);
  return latentOf(size, checkFrames(frames ?? preset?.frames ?? published.frames));
}

/** @throws DitrunError where a text is longer than the model takes, but for the published negative prompt. */
async function idsOf(
  { prompt, negativePrompt }: VideoRequest,
  model: WanModel,
  tokenizer: TokenizerThread | undefined,
): Promise<WanGenerateTask["ids"]> {
  const texts = [
    { name: "The prompt", text: prompt },
    { name: "The negative prompt", text: negativePrompt ?? published.negativePrompt },
  ];
  const { ids, warnings } =
    tokenizer === undefined
      ? bytesAsTokens(texts, model.textEncoder?.vocabulary ?? 256, model.textLength)
      : await tokenizer.tokenize(texts, model.textLength);
  const cut = warnings.find((warning) => negativePrompt !== undefined || warning.startsWith("The prompt"));
  if (cut !== undefined) throw new DitrunError("ERR_PROMPT", cut);
  const [own = [], negative = []] = ids;
  return { prompt: own, negative };
}
