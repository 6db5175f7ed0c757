import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeEach, expect } from "vitest";
import { packageRoot } from "../../src/paths.js";
import { processesWith } from "../processes.js";

/** A temporary folder of one `ditrun run`, whose processes carry its name. */
export class RunFolder {
  path = "";

  /** A folder of its own for each test of a file. After a test, nothing that was started there runs. */
  static ofEachTest(): RunFolder {
    const folder = new RunFolder();
    beforeEach(() => {
      folder.path = mkdtempSync(join(tmpdir(), "ditrun-run-test-"));
    });
    afterEach(() => {
      const left = folder.processes();
      for (const pid of left) process.kill(pid, "SIGKILL");
      expect(left).toEqual([]);
      folder.remove();
    });
    return folder;
  }

  /** Starts `ditrun run`; its temporary files are in this folder. @param before goes in front of the command line. */
  start(args: readonly string[], env: Record<string, string> = {}, before: readonly string[] = []) {
    const [program = "", ...rest] = [...before, "node", join(packageRoot, "bin", "ditrun.js"), "run", ...args];
    return execa(program, rest, {
      reject: false,
      stdin: "ignore",
      env: { TMPDIR: this.path, RUN_FOLDER: this.path, MASTER_PORT: "", ...env },
    });
  }

  /** The processes that it has started and that still run. */
  processes(): number[] {
    return processesWith(`RUN_FOLDER=${this.path}`);
  }

  /** What lies in the folder. */
  files(): string[] {
    return readdirSync(this.path);
  }

  text(...names: string[]): string {
    return readFileSync(join(this.path, ...names), "utf8");
  }

  remove(): void {
    rmSync(this.path, { recursive: true });
  }
}
