import type { Jobs } from "./jobs.js";
import type { Queue } from "./queue.js";
import { isFinal, type VideoRecord } from "./records.js";
import type { Video } from "./schemas.js";

interface Parts {
  readonly jobs: Jobs;
  readonly queue: Queue;
  readonly model: string;
  /** How long a video is kept once it is final. */
  readonly keepMs: number;
}

/** Videos as clients see them. */
export class VideoViews {
  /** JSON of records, as long as they are those of the store, with the two things that change besides. */
  readonly #texts = new WeakMap<VideoRecord, { progress: number; position: number | null; text: string }>();

  constructor(private readonly parts: Parts) {}

  object(record: VideoRecord): Video {
    return videoObject(record, this.#progress(record), this.#position(record), this.parts);
  }

  /** The same as JSON, kept for the next client that polls. */
  json(record: VideoRecord): string {
    const progress = this.#progress(record);
    const position = this.#position(record);
    const known = this.#texts.get(record);
    if (known?.progress === progress && known.position === position) return known.text;
    const text = JSON.stringify(videoObject(record, progress, position, this.parts));
    this.#texts.set(record, { progress, position, text });
    return text;
  }

  #progress({ id, status }: VideoRecord): number {
    if (status === "completed") return 100;
    return status === "in_progress" ? (this.parts.jobs.progressOf(id)?.percent ?? 0) : 0;
  }

  #position({ id, status }: VideoRecord): number | null {
    return status === "queued" ? (this.parts.queue.positionOf(id) ?? 1) : null;
  }
}

/** @param position its place in the queue; null where it does not wait. */
function videoObject(
  record: VideoRecord,
  progress: number,
  position: number | null,
  { model, keepMs }: Pick<Parts, "model" | "keepMs">,
): Video {
  const { id, status, settings, sampling, createdAt, completedAt, measured } = record;
  const completed = status === "completed";
  const seed = Number(settings.seed);
  return {
    ...{ id, object: "video", model, status },
    progress,
    created_at: seconds(createdAt),
    completed_at: completed && completedAt !== undefined ? seconds(completedAt) : null,
    expires_at: isFinal(record) && completedAt !== undefined ? seconds(completedAt + keepMs) : null,
    prompt: settings.prompt,
    size: `${settings.width}x${settings.height}`,
    seconds: settings.seconds ?? `${Number((settings.frames / settings.fps).toFixed(3))}`,
    ...{ quality: "standard", remixed_from_video_id: null, error: record.error ?? null },
    negative_prompt: settings.negativePrompt ?? null,
    num_frames: settings.frames,
    fps: settings.fps,
    num_inference_steps: sampling?.steps ?? settings.steps ?? null,
    guidance_scale: sampling?.guideScale ?? settings.guideScale ?? null,
    guidance_scale_2: sampling?.guideScale2 ?? settings.guideScale2 ?? null,
    flow_shift: sampling?.shift ?? settings.shift ?? null,
    lora: settings.loras?.map(({ name, strength }) => ({ name, scale: strength })) ?? null,
    lora_2: settings.loras2?.map(({ name, strength }) => ({ name, scale: strength })) ?? null,
    seed: Number.isSafeInteger(seed) ? seed : settings.seed,
    queue_position: position,
    url: completed ? `/v1/videos/${id}/content` : null,
    inference_time_s: measured?.inferenceSeconds ?? null,
    peak_memory_mb: measured ? Math.round(measured.peakMemoryBytes / 1e6) : null,
    stage_durations: measured?.stageSeconds ?? null,
  };
}

const seconds = (milliseconds: number) => Math.floor(milliseconds / 1000);
