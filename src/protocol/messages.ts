import { z } from "zod";
import { failureCodeSchema } from "./failure-code.js";

/**
 * What a worker and its launcher say to each other over ZeroMQ: one JSON frame, and raw bytes after it for `put`, `emit` and
 * `result` (to the launcher, in pieces: frames.ts), `joined`, `request` and `value` (to the worker). `id` pairs an answer with
 * its question. The bytes of `joined`, `request` and `result` are JSON that the rendezvous does not look into.
 */
const id = z.int().min(0);
const rank = z.int().min(0);
/** Requests are counted from 0. */
const request = z.int().min(0);
/** Who is to blame for a failure: the one that tells of it, or another rank. */
const cause = z.enum(["own", "peer"]);
const failure = { code: failureCodeSchema, message: z.string(), exitCode: z.int().min(1).max(255) };

export const workerMessageSchema = z.discriminatedUnion("type", [
  /** The first message; answered with `joined` or `refused`. */
  z.strictObject({ type: z.literal("join"), id, rank, host: z.string(), pid: z.int() }),
  /** Stores the bytes under the key; answered with `done`. With a request, the value is forgotten when that is over. */
  z.strictObject({ type: z.literal("put"), id, key: z.string(), request: request.optional() }),
  /** Answered with `value` once some rank has put the key, or with `refused` after the deadline. */
  z.strictObject({ type: z.literal("get"), id, key: z.string() }),
  /** Answered with `done` once every rank has arrived, or with `refused` after the deadline. */
  z.strictObject({ type: z.literal("barrier"), id, name: z.string() }),
  /** A barrier to which every rank brings a number; answered with `largest`. */
  z.strictObject({ type: z.literal("largest"), id, name: z.string(), value: z.number() }),
  /** Asks for the launcher's clock; answered at once with `time`. */
  z.strictObject({ type: z.literal("time"), id }),
  /** Hands the bytes to whoever made the request; answered with `done` when it has been dealt with, one after the other. */
  z.strictObject({ type: z.literal("emit"), id, name: z.string() }),
  /** Nothing but a sign of life, of which a rank gives some in every timeout, and one when it is asked; not answered. */
  z.strictObject({ type: z.literal("alive"), id }),
  /** Asks for the next request; answered, however long that takes, with `request` or `end`. */
  z.strictObject({ type: z.literal("next"), id }),
  /** Asks whether this step of the request may begin; answered with `go` or `stop`, the same for every rank. */
  z.strictObject({ type: z.literal("step"), id, request, step: z.int().min(0) }),
  /** The request cannot be done, though this rank can go on: it stops at the next step that no rank was told of. Answered with `done`. */
  z.strictObject({ type: z.literal("fault"), id, request, ...failure }),
  /** This rank has ended its part of a request early, for a `fault` or a `stop`; answered with `done`. */
  z.strictObject({ type: z.literal("stopped"), id, request }),
  /** This rank's result of a request; answered with `done`. */
  z.strictObject({ type: z.literal("result"), id, request }),
  /** This rank cannot go on; answered with `done`. */
  z.strictObject({ type: z.literal("fail"), id, ...failure, cause }),
]);
/** Signs of life that a rank gives in the time after which its silence ends the launch. */
export const pulsesPerTimeout = 4;

/** A failure as a rank tells of it. */
export type ToldFailure = Pick<Extract<WorkerMessage, { type: "fail" }>, "code" | "message" | "exitCode">;

export type WorkerMessage = z.infer<typeof workerMessageSchema>;

export const launcherMessageSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("joined"), id }),
  z.strictObject({ type: z.literal("done"), id }),
  z.strictObject({ type: z.literal("value"), id }),
  /** Of the numbers of all ranks. */
  z.strictObject({ type: z.literal("largest"), id, value: z.number() }),
  /** Of the launcher's CLOCK_MONOTONIC. */
  z.strictObject({ type: z.literal("time"), id, microseconds: z.number() }),
  z.strictObject({ type: z.literal("request"), id, request }),
  /** There will be no more requests. */
  z.strictObject({ type: z.literal("end"), id }),
  /** preview: what the step leaves is to be shown. */
  z.strictObject({ type: z.literal("go"), id, preview: z.boolean() }),
  z.strictObject({ type: z.literal("stop"), id, message: z.string() }),
  /** The question cannot be answered; the message is a sentence. */
  z.strictObject({ type: z.literal("refused"), id, message: z.string(), cause }),
  /** Asks for a sign of life at once; answered with `alive`. */
  z.strictObject({ type: z.literal("ping") }),
  /** All is over because of another rank, or because the user ended it. */
  z.strictObject({ type: z.literal("abort"), message: z.string() }),
]);
export type LauncherMessage = z.infer<typeof launcherMessageSchema>;

/** Bytes of the JSON of a message, as a worker sends it at most; a launcher does not even read what is longer. */
export const MOST_HEADER_BYTES = 64 * 1024;

/** Parses one JSON frame. @throws Error, of one line, when it is not JSON or not a message of this schema. */
export function parseMessage<T>(schema: z.ZodType<T>, frame: Uint8Array): T {
  const parsed = schema.safeParse(JSON.parse(new TextDecoder().decode(frame)));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new Error(issue ? `at ${issue.path.join(".") || "its top"}, ${issue.message}` : "it has no known form", {
    cause: parsed.error,
  });
}
