import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { makeJobKey } from "../../src/launcher/nodes/job-key.js";
import { packageRoot } from "../../src/paths.js";
import { mayMakeNamespaces, Network } from "./namespaces.js";
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

describe.skipIf(PYTORCH_PYTHON === "" || !mayMakeNamespaces)("two hosts of two ranks", () => {
  let network: Network | undefined;
  afterEach(() => network?.close());

  /** A launcher on each host; the network alone leads from one to the other. */
  const onTwoHosts = (...words: string[]) => {
    const net = new Network(2);
    network = net;
    const key = makeJobKey();
    const where = ["--nnodes", "2", "--nproc", "2", "--master-addr", net.address(0)];
    return Promise.all(
      [0, 1].map((node) =>
        folder.start(
          [...where, "--node-rank", String(node), ...words],
          { PYTHON_EXEC: PYTORCH_PYTHON, DITRUN_JOB_KEY: key },
          [...["sh", "-c", net.on(node), "sh"]],
        ),
      ),
    );
  };

  test("train one model over gloo", async () => {
    const ends = await onTwoHosts(train);
    const lines = ends.map(({ stdout }) =>
      stdout
        .replaceAll(/^\[rank \d \S+\] /gm, "")
        .split("\n")
        .sort(),
    );
    expect(lines).toEqual([
      ["trained 0 of 4", "trained 1 of 4"],
      ["trained 2 of 4", "trained 3 of 4"],
    ]);
    expect(ends.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
  });

  test("both launchers name the rank that raises, with its exception", async () => {
    for (const { exitCode, stderr } of await onTwoHosts(train, "raise")) {
      expect(stderr).toMatch(/^ditrun: Rank 1 .* exited with code 1: ValueError: the loss is not finite\. /m);
      expect(exitCode).toBe(1);
    }
  });
});
