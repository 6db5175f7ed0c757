import { readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeTemporaryFolder } from "../files/temporary.js";
import { errorFileMessage } from "./python-errors.js";

/** Far more than a traceback; a file beyond this is none. */
const MOST_BYTES = 2 ** 20;

/** Files in which programs may leave the exception that ended them. */
export class ErrorFiles {
  private constructor(private readonly folder: string | undefined) {}

  /** In a temporary folder. Where none can be made, programs are given no file. */
  static async open(): Promise<ErrorFiles> {
    return new ErrorFiles(await makeTemporaryFolder(tmpdir(), "ditrun-errors").catch(() => undefined));
  }

  path(attempt: number, rank: number): string | undefined {
    return this.folder === undefined ? undefined : join(this.folder, `attempt-${attempt}-rank-${rank}.json`);
  }

  /** What the rank has left; undefined for nothing. */
  message(attempt: number, rank: number): string | undefined {
    const path = this.path(attempt, rank);
    try {
      if (path === undefined || statSync(path).size > MOST_BYTES) return undefined;
      return errorFileMessage(readFileSync(path, "utf8"));
    } catch {
      return undefined;
    }
  }

  close(): void {
    if (this.folder !== undefined) rmSync(this.folder, { recursive: true, force: true });
  }
}
