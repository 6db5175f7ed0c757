import { DitrunError } from "../failure.js";
import { fieldOf } from "./server-error.js";
import type { Video, VideoProgress } from "./types.js";

type Check = (value: unknown) => boolean;

const text: Check = (value) => typeof value === "string";
const number: Check = (value) => typeof value === "number" && Number.isFinite(value);
const orNull =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);
const matching =
  (pattern: RegExp): Check =>
  (value) =>
    typeof value === "string" && pattern.test(value);
const oneOf =
  (...known: readonly string[]): Check =>
  (value) =>
    typeof value === "string" && known.includes(value);

/** What is shown as it is, such as an id, may hold nothing that steers a terminal. */
const videoChecks: Readonly<Record<keyof Video, Check>> = {
  id: matching(/^[\w-]{1,100}$/),
  object: oneOf("video"),
  model: text,
  status: oneOf("queued", "in_progress", "completed", "failed"),
  ...{ progress: number, created_at: number, completed_at: orNull(number), expires_at: orNull(number) },
  ...{ prompt: text, negative_prompt: orNull(text) },
  size: matching(/^\d{1,6}x\d{1,6}$/),
  seconds: matching(/^[\d.]{1,20}$/),
  ...{ num_frames: number, fps: number, num_inference_steps: orNull(number) },
  ...{ guidance_scale: orNull(number), guidance_scale_2: orNull(number), flow_shift: orNull(number) },
  seed: (value) => number(value) || matching(/^\d{1,20}$/)(value),
  error: orNull((value) => text(fieldOf(value, "code")) && text(fieldOf(value, "message"))),
  ...{ queue_position: orNull(number), inference_time_s: orNull(number), peak_memory_mb: orNull(number) },
  stage_durations: orNull((value) => typeof value === "object"),
};

const progressChecks: Readonly<Record<keyof VideoProgress, Check>> = {
  stage: oneOf("prepare", "encode", "sample", "decode"),
  ...{ step: number, steps: number, progress: number, eta_s: orNull(number) },
};

const isVideo = (value: unknown): value is Video => hasAll(value, videoChecks);
const isProgress = (value: unknown): value is VideoProgress => hasAll(value, progressChecks);

function hasAll(value: unknown, checks: Readonly<Record<string, Check>>): boolean {
  return Object.entries(checks).every(([name, check]) => check(fieldOf(value, name)));
}

/** A server that is newer may tell more, and that is passed on. @throws DitrunError ERR_SERVER_ANSWER where it is no video. */
export function asVideo(value: unknown): Video {
  if (isVideo(value)) return value;
  throw strange("a video");
}

/** @throws DitrunError ERR_SERVER_ANSWER where it is none. */
export function asProgress(value: unknown): VideoProgress {
  if (isProgress(value)) return value;
  throw strange("progress");
}

/** An answer that is not what was asked for. */
export function strange(what: string): DitrunError {
  return new DitrunError(
    "ERR_SERVER_ANSWER",
    `The server's answer should be ${what}, and is not: is it ditrun's server?`,
  );
}
