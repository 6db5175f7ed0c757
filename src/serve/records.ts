import { randomBytes } from "node:crypto";
import { z } from "zod";
import { statuses } from "./schemas.js";

/** A video to be made. */
export const settingsSchema = z.strictObject({
  prompt: z.string(),
  negativePrompt: z.string().optional(),
  width: z.int(),
  height: z.int(),
  frames: z.int(),
  fps: z.int(),
  /** As the client gave it. */
  seconds: z.string().optional(),
  /** These as the model is usually sampled, where they are left out. */
  steps: z.int().optional(),
  guideScale: z.number().optional(),
  /** Of the second of two transformers. */
  guideScale2: z.number().optional(),
  shift: z.number().optional(),
  /** By their names in the operator's folder. */
  loras: z.array(z.strictObject({ name: z.string(), strength: z.number() })).optional(),
  loras2: z.array(z.strictObject({ name: z.string(), strength: z.number() })).optional(),
  /** Digits. */
  seed: z.string(),
  deadlineSeconds: z.number().optional(),
  runDeadlineSeconds: z.number().optional(),
});
export type VideoSettings = z.infer<typeof settingsSchema>;

/** What the server knows of a video, as the journal keeps it. Times are milliseconds since 1970. */
export const recordSchema = z.strictObject({
  /** Ids of one server sort by the time of their creation. */
  id: z.string().regex(/^video_[0-9a-f]+$/),
  createdAt: z.int(),
  status: z.enum(statuses),
  settings: settingsSchema,
  /** How often it was begun: once more after a crash, then no more. */
  attempts: z.int(),
  /** A client has cancelled it; it may run until its next step. */
  cancelled: z.boolean(),
  /** The client's key against twins, and a hash of what it asked for. */
  idempotency: z.strictObject({ key: z.string(), digest: z.string() }).optional(),
  /** How it is sampled, once it was begun. */
  sampling: z
    .strictObject({
      ...{ steps: z.int(), guideScale: z.number(), shift: z.number() },
      guideScale2: z.number().optional(),
    })
    .optional(),
  startedAt: z.int().optional(),
  completedAt: z.int().optional(),
  error: z.strictObject({ code: z.string(), message: z.string() }).optional(),
  measured: z
    .strictObject({
      inferenceSeconds: z.number(),
      peakMemoryBytes: z.number(),
      stageSeconds: z.record(z.string(), z.number()),
    })
    .optional(),
});
export type VideoRecord = z.infer<typeof recordSchema>;

/** How often a video is begun at most. */
export const mostAttempts = 2;

/** Whether nothing will change any more. */
export function isFinal({ status }: VideoRecord): boolean {
  return status === "completed" || status === "failed";
}

/** Makes ids that sort by their creation, also where the clock goes back: 12 digits of time, 16 that nobody guesses. */
export class Ids {
  #last = 0;

  /** @param newest the id that all others come after. */
  constructor(newest?: string) {
    if (newest !== undefined) this.#last = Number.parseInt(newest.slice("video_".length, "video_".length + 12), 16);
  }

  next(now: number): string {
    this.#last = Math.max(this.#last + 1, now);
    return `video_${this.#last.toString(16).padStart(12, "0")}${randomBytes(8).toString("hex")}`;
  }
}
