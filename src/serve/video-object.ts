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

/** A video as clients see it. */
export function videoObject(record: VideoRecord, { jobs, queue, model, keepMs }: Parts): Video {
  const { id, status, settings, sampling, createdAt, completedAt, measured } = record;
  const completed = status === "completed";
  const seed = Number(settings.seed);
  return {
    ...{ id, object: "video", model, status },
    progress: completed ? 100 : status === "in_progress" ? (jobs.progressOf(id)?.percent ?? 0) : 0,
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
    flow_shift: sampling?.shift ?? settings.shift ?? null,
    lora: settings.loras?.map(({ name, strength }) => ({ name, scale: strength })) ?? null,
    seed: Number.isSafeInteger(seed) ? seed : settings.seed,
    queue_position: status === "queued" ? (queue.positionOf(id) ?? 1) : null,
    url: completed ? `/v1/videos/${id}/content` : null,
    inference_time_s: measured?.inferenceSeconds ?? null,
    peak_memory_mb: measured ? Math.round(measured.peakMemoryBytes / 1e6) : null,
    stage_durations: measured?.stageSeconds ?? null,
  };
}

const seconds = (milliseconds: number) => Math.floor(milliseconds / 1000);
