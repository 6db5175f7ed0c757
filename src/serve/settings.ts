import { createHash, randomBytes } from "node:crypto";
import { ApiError, badField } from "./api-error.js";
import type { Loras } from "./make-video.js";
import type { VideoSettings } from "./records.js";
import type { CreateRequest } from "./schemas.js";

/** What a server makes: sizes and lengths that it is ready for, and what holds where a request says nothing. */
export interface Offer {
  /** The model, as clients name it. */
  readonly model: string;
  /** The first one is taken where a request names none. */
  readonly sizes: readonly { readonly width: number; readonly height: number }[];
  /** 4n + 1. */
  readonly frames: number;
  readonly mostFrames: number;
  readonly fps: number;
  /** Whether the model has two transformers. */
  readonly two?: boolean;
  /** LoRAs that a request may name. */
  readonly loras: Loras;
  /** These as the model is usually sampled, where nobody says. */
  readonly steps?: number | undefined;
  readonly guideScale?: number | undefined;
  /** Of the second of two transformers. */
  readonly guideScale2?: number | undefined;
  readonly shift?: number | undefined;
}

/** The video that a request describes. @throws ApiError where the server makes no such video. */
export function settingsOf(request: CreateRequest, offer: Offer): VideoSettings {
  if (request.model !== undefined && request.model !== offer.model) {
    const message = `There is no model "${request.model}" here, only "${offer.model}".`;
    throw new ApiError(404, "model_not_found", message, { param: "model" });
  }
  if (request.seconds !== undefined && request.num_frames !== undefined) {
    throw badField("seconds", '"seconds" and "num_frames" both say how long the video is. Give one of them.');
  }
  const fps = request.fps ?? offer.fps;
  return {
    prompt: request.prompt,
    ...(request.negative_prompt !== undefined && { negativePrompt: request.negative_prompt }),
    ...sizeOf(request.size, offer),
    ...{ frames: framesOf(request, fps, offer), fps },
    ...(request.seconds !== undefined && { seconds: request.seconds }),
    ...given("steps", request.num_inference_steps ?? offer.steps),
    ...given("guideScale", request.guidance_scale ?? offer.guideScale),
    ...given("guideScale2", secondScale(request, offer)),
    ...given("shift", request.flow_shift ?? offer.shift),
    ...(request.lora !== undefined && { loras: lorasOf(request.lora, offer) }),
    ...(request.lora_2 !== undefined && { loras2: lorasOf(forSecond("lora_2", request.lora_2, offer), offer) }),
    seed: String(request.seed ?? BigInt.asUintN(53, randomBytes(8).readBigUInt64LE())),
    ...(request.deadline_seconds !== undefined && { deadlineSeconds: request.deadline_seconds }),
    ...(request.run_deadline_seconds !== undefined && { runDeadlineSeconds: request.run_deadline_seconds }),
  };
}

/** A hash of what a request asks for, whatever the order of its fields. */
export function digestOf(request: CreateRequest): string {
  const fields = Object.entries(request).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(fields)).digest("hex");
}

/** @throws ApiError for a name that is not in the operator's folder. */
function lorasOf(lora: NonNullable<CreateRequest["lora"]>, { loras }: Offer): NonNullable<VideoSettings["loras"]> {
  const asked = typeof lora === "string" ? [{ name: lora, scale: 1 }] : lora;
  return asked.map(({ name, scale }) => {
    if (loras.has(name)) return { name, strength: scale };
    const known = loras.size === 0 ? "none" : [...loras.keys()].join(", ");
    throw badField("lora", `There is no LoRA "${name}" here; known are: ${known}.`);
  });
}

/** The guidance of the second of two transformers: as of the first, where a request names that alone. @throws ApiError where there is one. */
function secondScale({ guidance_scale, guidance_scale_2 }: CreateRequest, offer: Offer): number | undefined {
  if (guidance_scale_2 === undefined) return guidance_scale === undefined ? offer.guideScale2 : undefined;
  if (guidance_scale === undefined && offer.guideScale === undefined)
    throw badField("guidance_scale_2", '"guidance_scale_2" is given without "guidance_scale". Give both.');
  return forSecond("guidance_scale_2", guidance_scale_2, offer);
}

/** @throws ApiError where there is no second transformer. */
function forSecond<T>(field: string, value: T, { two, model }: Offer): T {
  if (two) return value;
  throw badField(field, `"${field}" is for a second transformer, and ${model} has one. Leave it out.`);
}

/** The field, where there is a value for it. */
function given<Name extends string>(name: Name, value: number | undefined): { [Each in Name]?: number } {
  const field: { [Each in Name]?: number } = {};
  if (value !== undefined) field[name] = value;
  return field;
}

function sizeOf(size: string | undefined, { sizes }: Offer): { width: number; height: number } {
  const [width, height] = (size ?? "").split(/[x*]/).map(Number);
  const found = size === undefined ? sizes[0] : sizes.find((each) => each.width === width && each.height === height);
  if (found) return { width: found.width, height: found.height };
  const known = sizes.map((each) => `${each.width}x${each.height}`).join(", ");
  throw badField("size", `"size" is ${size}; this server makes ${known}.`);
}

function framesOf({ seconds, num_frames }: CreateRequest, fps: number, { frames, mostFrames }: Offer): number {
  const wanted = num_frames ?? (seconds === undefined ? frames : nearestFrames(Number(seconds) * fps));
  const field = num_frames === undefined ? "seconds" : "num_frames";
  if (wanted % 4 !== 1) {
    throw badField(field, `"num_frames" is ${wanted}; a video has 4n + 1 frames, as ${nearestFrames(wanted)}.`);
  }
  if (wanted <= mostFrames) return wanted;
  throw badField(field, `The video would have ${wanted} frames; this server makes at most ${mostFrames}.`);
}

/** 4n + 1. */
function nearestFrames(frames: number): number {
  return 1 + 4 * Math.max(0, Math.round((frames - 1) / 4));
}
