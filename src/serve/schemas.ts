import { z } from "zod";
import { largestSeed } from "../limits.js";

/** What a request may be at most, beside what the operator sets. */
export const limits = {
  /** As OpenAI's; the model reads 512 tokens of them. */
  promptCharacters: 32_000,
  steps: 200,
  guidance: 20,
  shift: 100,
  fps: 120,
  deadlineSeconds: 86_400,
  /** Two prompts of four bytes a character as \uXXXX, and the rest. */
  bodyBytes: 2 ** 20,
  keyCharacters: 255,
  /** Of a page of the list. */
  page: 100,
} as const;

const text = z.string().max(limits.promptCharacters);
const seed = z
  .union([
    z.int().min(0),
    // Nothing after it sees what is not digits: BigInt would throw.
    z.string().regex(/^\d{1,20}$/, { error: "must be digits", abort: true }),
  ])
  .refine((value) => BigInt(value) <= largestSeed, `must be at most ${largestSeed}`);

const loraName = z.string().min(1).max(200);
const lora = z.union([
  loraName,
  z
    .array(z.strictObject({ name: loraName, scale: z.number().min(-10).max(10).default(1) }))
    .min(1)
    .max(8),
]);

/** The body of POST /v1/videos. OpenAI's fields, and SGLang's names for the others. */
export const createSchema = z.strictObject({
  prompt: text.refine((value) => value.trim() !== "", "must not be empty").describe("What the video should show."),
  model: z.string().max(200).optional().describe("The model that this server has; it may be left out."),
  seconds: z
    .string()
    .regex(/^\d{1,4}(?:\.\d{1,3})?$/, 'must be seconds in digits, as "5"')
    .optional()
    .describe("Length in seconds, as text. The video gets the nearest 4n + 1 frames."),
  size: z
    .string()
    .regex(/^\d{1,5}[x*]\d{1,5}$/, "must be WIDTHxHEIGHT")
    .optional()
    .describe("WIDTHxHEIGHT in pixels, one of the sizes that the server was started with."),
  num_frames: z.int().min(1).optional().describe("Frames, 4n + 1; in place of seconds."),
  fps: z.int().min(1).max(limits.fps).optional().describe("Frames per second."),
  num_inference_steps: z.int().min(1).max(limits.steps).optional().describe("Sampling steps."),
  guidance_scale: z.number().min(0).max(limits.guidance).optional().describe("How much the prompt counts."),
  guidance_scale_2: z
    .number()
    .min(0)
    .max(limits.guidance)
    .optional()
    .describe("The same for low noise, where a model has two transformers; else as guidance_scale."),
  flow_shift: z.number().positive().max(limits.shift).optional().describe("Above 1: more steps at high noise."),
  negative_prompt: text.optional().describe("What the video should not show."),
  seed: seed.optional().describe("0 to 2^64 - 1; drawn where it is left out."),
  lora: lora.optional().describe("LoRAs of this server: a name, or a list of names with a scale each."),
  lora_2: lora
    .optional()
    .describe("The same for low noise, where a model has two transformers; lora is then for high noise."),
  deadline_seconds: z
    .number()
    .positive()
    .max(limits.deadlineSeconds)
    .optional()
    .describe("The video fails unless it is done so soon, the queue included."),
  run_deadline_seconds: z
    .number()
    .positive()
    .max(limits.deadlineSeconds)
    .optional()
    .describe("The video fails unless it is done so soon after its start."),
});
export type CreateRequest = z.infer<typeof createSchema>;

/** Fields that a form brings as text, as it does all. */
export const numberFields: ReadonlySet<string> = new Set([
  ...["num_frames", "fps", "num_inference_steps", "guidance_scale", "guidance_scale_2", "flow_shift"],
  ...["deadline_seconds", "run_deadline_seconds"],
]);

/** The query of GET /v1/videos. */
export const listSchema = z.strictObject({
  limit: z.coerce.number().int().min(0).max(limits.page).default(20),
  order: z.enum(["asc", "desc"]).default("desc"),
  after: z
    .string()
    .regex(/^video_[0-9a-f]{1,64}$/, "must be the id of a video")
    .optional(),
});
export type ListRequest = z.infer<typeof listSchema>;

export const statuses = ["queued", "in_progress", "completed", "failed"] as const;

/** A video as clients see it; times are Unix seconds. */
export const videoSchema = z.strictObject({
  id: z.string(),
  object: z.literal("video"),
  model: z.string(),
  status: z.enum(statuses),
  progress: z.int().min(0).max(100),
  created_at: z.int(),
  completed_at: z.int().nullable(),
  expires_at: z.int().nullable(),
  prompt: z.string(),
  size: z.string(),
  seconds: z.string(),
  quality: z.literal("standard"),
  remixed_from_video_id: z.null(),
  error: z.strictObject({ code: z.string(), message: z.string() }).nullable(),
  negative_prompt: z.string().nullable(),
  num_frames: z.int(),
  fps: z.int(),
  /** How it is sampled; null until it is begun, where the request does not say. */
  num_inference_steps: z.int().nullable(),
  guidance_scale: z.number().nullable(),
  guidance_scale_2: z.number().nullable(),
  flow_shift: z.number().nullable(),
  /** By their names here; null where the request names none. */
  lora: z.array(z.strictObject({ name: z.string(), scale: z.number() })).nullable(),
  lora_2: z.array(z.strictObject({ name: z.string(), scale: z.number() })).nullable(),
  /** A number where JSON can hold it exactly, else digits. */
  seed: z.union([z.int(), z.string()]),
  /** 1 is next, or about to begin; null where it does not wait. */
  queue_position: z.int().nullable(),
  /** A path on this server; null until the video is completed. */
  url: z.string().nullable(),
  inference_time_s: z.number().nullable(),
  peak_memory_mb: z.number().nullable(),
  stage_durations: z.record(z.string(), z.number()).nullable(),
});
export type Video = z.infer<typeof videoSchema>;

export const videoListSchema = z.strictObject({
  object: z.literal("list"),
  data: z.array(videoSchema),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
  has_more: z.boolean(),
});

export const deletedSchema = z.strictObject({
  id: z.string(),
  object: z.literal("video.deleted"),
  deleted: z.literal(true),
});

export const modelSchema = z.strictObject({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.literal("ditrun"),
  /** What videos may be; the first size and this number of frames are those of a request that names none. */
  sizes: z.array(z.string()).min(1),
  num_frames: z.int(),
  max_num_frames: z.int(),
  fps: z.int(),
  /** How a request is sampled that does not say; null until the model is loaded. */
  num_inference_steps: z.int().nullable(),
  guidance_scale: z.number().nullable(),
  flow_shift: z.number().nullable(),
  /** Names that a request may give as `lora`. */
  loras: z.array(z.string()),
});
export type ServedModel = z.infer<typeof modelSchema>;

export const modelListSchema = z.strictObject({ object: z.literal("list"), data: z.array(modelSchema) });

export const errorSchema = z.strictObject({
  error: z.strictObject({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
});

/** What GET /v1/videos/{id}/events sends under the name `progress`. */
export const progressEventSchema = z.strictObject({
  stage: z.enum(["prepare", "encode", "sample", "decode"]),
  step: z.int(),
  steps: z.int(),
  progress: z.int(),
  /** Until the video is whole, as fast as before; decoding counts once a video of this size was made. Null while it is not known. */
  eta_s: z.number().nullable(),
});
export type ProgressEvent = z.infer<typeof progressEventSchema>;

/** What it sends under the name `preview`: what the video looks like after a step, roughly. */
export const previewEventSchema = z.strictObject({
  step: z.int(),
  /** Pictures in the image, one below the other, from the video's beginning to its end. */
  frames: z.int(),
  /** Of each picture: an eighth of the video's. */
  width: z.int(),
  height: z.int(),
  /** A JPEG file in base64. */
  b64_json: z.string(),
});
export type PreviewEvent = z.infer<typeof previewEventSchema>;
