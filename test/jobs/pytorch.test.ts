import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../src/paths.js";
import { RunFolder } from "./run.js";

/** Set by test/pytorch.sh, where a Python with PyTorch was found. */
const { PYTORCH_PYTHON = "" } = process.env;
const testWithPyTorch = test.skipIf(PYTORCH_PYTHON === "");
const train = join(packageRoot, "test", "pytorch", "train.py");

const folder = RunFolder.ofEachTest();

const run = (...args: string[]) =>
  folder.start(["--nproc-per-node", "4", "--log-dir", join(folder.path, "logs"), ...args], {
    PYTHON_EXEC: PYTORCH_PYTHON,
  });

testWithPyTorch("four ranks train one model over gloo, unchanged", async () => {
  const { exitCode, stdout, stderr } = await run(train);
  expect(stdout.split("\n").sort()).toEqual([0, 1, 2, 3].map((rank) => `[rank ${rank}] trained ${rank} of 4`));
  expect(stderr).not.toContain("Victims");
  expect(exitCode).toBe(0);
});

testWithPyTorch("the one that raises is named with its exception, those that lose it are victims", async () => {
  const { exitCode, stderr } = await run(train, "raise");
  expect(stderr).toMatch(/^ditrun: Rank 1 .* exited with code 1: ValueError: the loss is not finite\. /m);
  expect(stderr).toMatch(/^ditrun: Victims, not the cause: /m);
  expect(exitCode).toBe(1);
});

testWithPyTorch("the one that hangs is told apart from those that wait for it", async () => {
  const { exitCode, stderr } = await run("--timeout", "20", train, "hang");
  expect(stderr).toMatch(/as --timeout allows; rank 1 in stuck_step \(train\.py:\d+\); ranks 0, 2 and 3 in /);
  expect(exitCode).toBe(4);
});
