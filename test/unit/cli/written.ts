import { afterEach, beforeEach, vi } from "vitest";
import { main } from "../../../src/cli/main.js";
import * as rehearsal from "../../../src/cli/rehearsal.js";

/** What the process has written in the test at hand. */
export const written = { stdout: "", stderr: "" };

/** For a file of tests: catches what they write, each from the beginning; mocks and variables end with each. */
export function catchOutput(): void {
  beforeEach(() => {
    Object.assign(written, { stdout: "", stderr: "" });
    for (const name of ["stdout", "stderr"] as const) {
      vi.spyOn(process[name], "write").mockImplementation((text) => {
        written[name] += text;
        return true;
      });
    }
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.unstubAllEnvs();
  });
}

/** What a rehearsal says that each worker needs and has. */
export const memory = { neededBytes: 3 * 2 ** 30, availableBytes: 4 * 2 ** 30, encoderFirst: true, hostBytes: 0 };

/** The same for lines that end with a dry run at most. Real workers rehearse in test/jobs/dry-run.test.ts. */
export function catchDryRuns(): void {
  catchOutput();
  beforeEach(() => {
    vi.stubEnv("DITRUN_KERNELS", "");
    vi.stubEnv("MASTER_PORT", "");
    vi.spyOn(rehearsal, "rehearse").mockResolvedValue(memory);
  });
}

/** Runs a line of words without quotes. @returns the exit code. */
export const run = (line: string) => main(line.split(" ").filter((word) => word !== ""));
