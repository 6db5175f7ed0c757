import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { main } from "../../../src/cli/main.js";
import { catchOutput, written } from "./written.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-job-hosts-"));
afterAll(() => rmSync(folder, { recursive: true }));

catchOutput();

const readable = join(folder, "readable");
writeFileSync(readable, "x".repeat(43));
chmodSync(readable, 0o644);

test.each([
  ["no key", {}, "run ditrun key once, and set DITRUN_JOB_KEY"],
  ["a key that is none", { DITRUN_JOB_KEY: "secret" }, "DITRUN_JOB_KEY holds 6 characters"],
  ["a key file that is not there", { DITRUN_JOB_KEY_FILE: "/nowhere/key" }, "DITRUN_JOB_KEY_FILE /nowhere/key"],
  ["a key file that all can read", { DITRUN_JOB_KEY_FILE: readable }, "chmod 600"],
])("several hosts with %s: refused with the way out", async (_name, variables, words) => {
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
  const where = ["--nnodes", "2", "--node-rank", "0", "--master-addr", "127.0.0.1"];
  expect(await main(["profile", "--device", "cpu", ...where])).toBe(2);
  expect(written.stderr).toContain(words);
  expect(written.stderr).not.toContain("secret");
});

test.each([
  [
    { SLURM_JOB_ID: "1", SLURM_STEP_ID: "0", SLURM_STEP_NUM_TASKS: "4", SLURM_STEP_NUM_NODES: "1" },
    "4 tasks on 1 node",
  ],
  [{ RANK: "1", WORLD_SIZE: "2", TORCHELASTIC_RUN_ID: "x" }, "torchrun started ditrun as one of its ranks"],
  [{ JOB_COMPLETION_INDEX: "0" }, "nothing says how many hosts the job has"],
])("a task of several does not run the whole job: %o", async (variables, words) => {
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
  expect(await main(["profile", "--device", "cpu"])).toBe(2);
  expect(written.stderr).toContain(words);
});

test("ditrun key prints a key, or writes it for its user alone; one that is there stays", async () => {
  expect(await main(["key"])).toBe(0);
  expect(written.stdout).toMatch(/^[\w-]{43}\n$/);
  const file = join(folder, "job.key");
  expect(await main(["key", "--out", file])).toBe(0);
  const made = readFileSync(file, "utf8");
  expect(made).toMatch(/^[\w-]{43}\n$/);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(await main(["key", "--out", file])).toBe(2);
  expect(readFileSync(file, "utf8")).toBe(made);
});
