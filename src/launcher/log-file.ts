import { closeSync, constants, openSync, writeSync } from "node:fs";
import { fileFailure } from "../files/file-failure.js";

/** A log holds what a job was asked for, which is nobody else's business. */
const OWNER_ONLY = 0o600;

/**
 * A file that takes text at once, so that nothing is lost whatever happens next. One that cannot be written any more, on a full
 * disk for instance, is told of once, and the job goes on without it.
 */
export class LogFile {
  #file: number | undefined;

  /** @throws Error when the file cannot be opened. */
  constructor(
    private readonly path: string,
    mode: "append" | "anew",
    private readonly onBroken: (message: string) => void,
  ) {
    const { O_APPEND, O_CREAT, O_TRUNC, O_WRONLY } = constants;
    this.#file = openSync(path, O_WRONLY | O_CREAT | O_APPEND | (mode === "anew" ? O_TRUNC : 0), OWNER_ONLY);
  }

  write(text: string): void {
    if (this.#file === undefined) return;
    try {
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#file, bytes, at);
    } catch (error) {
      this.close();
      this.onBroken(`${this.path} cannot be written any more: ${fileFailure(error)}.`);
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }
}
