import { z } from "zod";
import { jobSchema } from "./job.js";

/**
 * What a worker and its launcher say to each other over ZeroMQ: one JSON frame, and raw bytes after it for `put`, `emit` and
 * `result` (to the launcher, in pieces: frames.ts) and `value` (to the worker). `id` pairs an answer with its question.
 */
const id = z.int().min(0);
const rank = z.int().min(0);
/** Who is to blame for a failure: the one that tells of it, or another rank. */
const cause = z.enum(["own", "peer"]);

export const workerMessageSchema = z.discriminatedUnion("type", [
  /** The first message; answered with `job` or `refused`. */
  z.strictObject({ type: z.literal("join"), id, rank, host: z.string(), pid: z.int() }),
  /** Stores the bytes under the key; answered with `done`. */
  z.strictObject({ type: z.literal("put"), id, key: z.string() }),
  /** Answered with `value` once some rank has put the key, or with `refused` after the deadline. */
  z.strictObject({ type: z.literal("get"), id, key: z.string() }),
  /** Answered with `done` once every rank has arrived, or with `refused` after the deadline. */
  z.strictObject({ type: z.literal("barrier"), id, name: z.string() }),
  /** Hands the bytes to the command that runs; answered with `done` when it has been dealt with, one after the other. */
  z.strictObject({ type: z.literal("emit"), id, name: z.string() }),
  /** Nothing but a sign of life, of which a rank gives some in every timeout; not answered. */
  z.strictObject({ type: z.literal("alive"), id }),
  /** This rank cannot go on; answered with `done`. */
  z.strictObject({ type: z.literal("fail"), id, message: z.string(), exitCode: z.int().min(1).max(255), cause }),
  /** This rank's result, as JSON in the bytes, after which it ends; answered with `done`. */
  z.strictObject({ type: z.literal("result"), id }),
]);
/** Signs of life that a rank gives in the time after which its silence ends the job. */
export const pulsesPerTimeout = 4;

export type WorkerMessage = z.infer<typeof workerMessageSchema>;

export const launcherMessageSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("job"), id, job: jobSchema }),
  z.strictObject({ type: z.literal("done"), id }),
  z.strictObject({ type: z.literal("value"), id }),
  /** The question cannot be answered; the message is a sentence. */
  z.strictObject({ type: z.literal("refused"), id, message: z.string(), cause }),
  /** The job is over because of another rank, or because the user ended it. */
  z.strictObject({ type: z.literal("abort"), message: z.string() }),
]);
export type LauncherMessage = z.infer<typeof launcherMessageSchema>;

/** Parses one JSON frame. @throws Error, of one line, when it is not JSON or not a message of this schema. */
export function parseMessage<T>(schema: z.ZodType<T>, frame: Uint8Array): T {
  const parsed = schema.safeParse(JSON.parse(new TextDecoder().decode(frame)));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new Error(issue ? `at ${issue.path.join(".") || "its top"}, ${issue.message}` : "it has no known form", {
    cause: parsed.error,
  });
}
