import type { ProgressEvent, Video } from "../schemas.js";

/** 5.1 s, 2 min, 1 h 10 min. */
export function duration(seconds: number): string {
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const rest = minutes % 60;
  return rest === 0 ? `${minutes / 60} h` : `${Math.floor(minutes / 60)} h ${rest} min`;
}

/** What a video is at, as a person says it. */
export function stageWords({ stage, step, steps }: ProgressEvent): string {
  if (stage === "prepare") return "Getting ready";
  if (stage === "encode") return "Reading the prompt";
  if (stage === "decode") return "Drawing the frames";
  return `Step ${Math.min(step + 1, steps)} of ${steps}`;
}

export function leftWords({ eta_s: left }: ProgressEvent): string {
  if (left === null) return "";
  return left < 1 ? "nearly done" : `${duration(Math.max(1, Math.round(left)))} left`;
}

/** Its state in a word or two. */
export function stateWords({ status, queue_position: place, error, progress }: Video): string {
  if (status === "queued") return place === null || place <= 1 ? "Next in the queue" : `Place ${place} in the queue`;
  if (status === "in_progress") return `${progress} % done`;
  if (status === "completed") return "Done";
  return error?.code === "cancelled" ? "Cancelled" : "Failed";
}

/** As `832 × 480`. */
export const sizeWords = (size: string) => size.replace(/[x*]/, " × ");

export const lengthWords = (frames: number, fps: number) => duration(frames / fps);

export function isActive({ status }: Pick<Video, "status">): boolean {
  return status === "queued" || status === "in_progress";
}

/** Width by height of a video. */
export function shapeOf(size: string): { readonly width: number; readonly height: number } {
  const [width = 16, height = 9] = size.split(/[x*]/).map(Number);
  return { width, height };
}

/** Seconds that a video may take, from the latest one of its size and length; undefined where there is none. */
export function estimate(
  videos: readonly Video[],
  size: string,
  frames: number,
  steps: number | null,
): number | undefined {
  const alike = videos.find(
    (video) => video.inference_time_s !== null && video.size === size && video.num_frames === frames,
  );
  if (!alike || alike.inference_time_s === null) return undefined;
  const sampling = alike.stage_durations?.sample ?? alike.inference_time_s;
  const factor = steps === null || alike.num_inference_steps === null ? 1 : steps / alike.num_inference_steps;
  return alike.inference_time_s + sampling * (factor - 1);
}
