import { closeSync, openSync, writeSync } from "node:fs";
import { DitrunError, type FailureCode } from "../failure.js";
import { checkApart, type NamedFile } from "../files/apart.js";
import { fileFailure } from "../files/file-failure.js";
import { checkOutputFile } from "../files/output-file.js";
import type { JobEvent } from "../views/job-progress.js";
import type { Envelope } from "./envelope.js";

/** What --events tells, one JSON object a line; docs/json.md and docs/schema/events.json have the fields. */
export type LaunchEvent =
  | ({ readonly event: "started" } & Envelope)
  | { readonly event: "job"; kind: string; subject: string; plan: string; workers: number; deviceKind: string }
  | { readonly event: "download"; file: string; bytes: number; totalBytes: number }
  | JobEvent
  | { readonly event: "run"; done: number; total: number; what: string; seconds: number }
  | { readonly event: "video"; out: string; frames: number }
  | { readonly event: "finished"; exitCode: number; result: object | null }
  | { readonly event: "failed"; exitCode: number; error: FailureFields };

/** A failure, as JSON documents and events have it. */
export interface FailureFields {
  readonly message: string;
  readonly code: FailureCode;
  readonly exitCode: number;
  readonly rank?: number | undefined;
  readonly host?: string | undefined;
  readonly signal?: string | undefined;
}

/** `--events FILE|-`: progress as NDJSON. Each line is written at once, whole. */
export class Events {
  #file: number | undefined;
  #ended = false;

  private constructor(file: number | undefined) {
    this.#file = file;
  }

  /** Nobody asked for events. */
  static none(): Events {
    return new Events(undefined);
  }

  /**
   * @param target a file, which is written anew, or `-` for stdout. @param others files that the same line names.
   * @throws DitrunError when it cannot be written, or is another of those.
   */
  static async open(target: string | undefined, others: readonly NamedFile[]): Promise<Events> {
    if (target === undefined) return Events.none();
    if (target === "-") return new Events(1);
    await checkApart({ option: "--events", path: target, use: "written" }, others);
    await checkOutputFile(target, false);
    try {
      return new Events(openSync(target, "w"));
    } catch (error) {
      throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${target}: ${fileFailure(error)}.`, { cause: error });
    }
  }

  /** Writes one line. A file that cannot be written any more is left: the job matters more. */
  tell(event: LaunchEvent): void {
    if (this.#file === undefined || this.#ended) return;
    if (event.event === "finished" || event.event === "failed") this.#ended = true;
    const bytes = Buffer.from(`${JSON.stringify({ time: new Date().toISOString(), ...event })}\n`);
    try {
      for (let at = 0; at < bytes.length; ) at += this.#write(this.#file, bytes, at);
    } catch {
      this.#close();
    }
    if (this.#ended) this.#close();
  }

  /** A pipe whose reader is slow is waited for. */
  #write(file: number, bytes: Buffer, at: number): number {
    try {
      return writeSync(file, bytes, at);
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
      return 0;
    }
  }

  #close(): void {
    if (this.#file !== undefined && this.#file > 2) closeSync(this.#file);
    this.#file = undefined;
  }
}
