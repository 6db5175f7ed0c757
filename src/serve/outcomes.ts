import { DitrunError } from "../failure.js";
import { storageError } from "./api-error.js";
import type { Made } from "./make-video.js";
import { mostAttempts, type VideoRecord } from "./records.js";

/** Why a video has failed, as clients see it. */
type Fault = NonNullable<VideoRecord["error"]>;

export const cancelled: Fault = { code: "cancelled", message: "The video was cancelled." };
export const restarted: Fault = {
  code: "server_restarted",
  message: "The server ended twice while it made this video.",
};

/** It waited too long. */
export function late(seconds: number): Fault {
  return { code: "deadline_exceeded", message: `The video was not begun within the ${seconds} s that it may take.` };
}

export function failed(record: VideoRecord, error: Fault, at: number): VideoRecord {
  return { ...record, status: "failed", completedAt: at, error };
}

interface Run {
  /** The workers are gone, and not this one request alone. */
  readonly crashed: boolean;
  /** The server ended the run. */
  readonly stopped: boolean;
  /** Milliseconds since 1970. */
  readonly at: number;
}

/** The state of a video after a run of it. */
export function afterRun(record: VideoRecord, made: Made | DitrunError, { crashed, stopped, at }: Run): VideoRecord {
  if (!(made instanceof DitrunError)) {
    return { ...record, status: "completed", completedAt: at, measured: made.measured };
  }
  if (record.cancelled) return failed(record, cancelled, at);
  // The server's own end is no fault of the video.
  if (stopped) return { ...record, status: "queued", attempts: record.attempts - 1 };
  if (!crashed) return failed(record, faultOf(made), at);
  if (record.attempts < mostAttempts) return { ...record, status: "queued" };
  const message = `The workers failed twice while they made this video. ${withoutFolders(made.message)}`;
  return failed(record, { code: "worker_failed", message }, at);
}

/** For counting. */
export function outcomeOf({ status, error }: VideoRecord): "completed" | "failed" | "cancelled" {
  if (status === "completed") return status;
  return error?.code === cancelled.code ? "cancelled" : "failed";
}

/** Clients know the disk's state, but not where on it the server has its files. */
function faultOf(error: DitrunError): Fault {
  const { code, message } = storageError(error) ?? { code: codeOf(error), message: withoutFolders(error.message) };
  return { code, message };
}

/** Leaves of each absolute path its last part. */
export function withoutFolders(message: string): string {
  return message.replace(/(?<![\w.:/])(?:\/[^\s/"':;,]+)+\/(?=[^\s/])/g, "");
}

/** As clients know it: `not_finite` for ERR_NOT_FINITE. */
function codeOf({ code }: DitrunError): string {
  return code === "ERR_DEADLINE" ? "deadline_exceeded" : code.replace(/^ERR_/, "").toLowerCase();
}

/** Milliseconds that a run may take, undefined without a deadline. */
export function timeLeft({ createdAt, settings }: VideoRecord, now: number): number | undefined {
  const { deadlineSeconds = Number.POSITIVE_INFINITY, runDeadlineSeconds = Number.POSITIVE_INFINITY } = settings;
  const left = Math.min(createdAt + deadlineSeconds * 1000 - now, runDeadlineSeconds * 1000);
  return Number.isFinite(left) ? Math.max(1, Math.round(left)) : undefined;
}
