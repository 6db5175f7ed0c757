import { expect, test } from "vitest";
import { makeJobKey } from "../../src/launcher/nodes/job-key.js";
import { freePort } from "./hosts.js";
import { RunFolder } from "./run.js";

const folder = RunFolder.ofEachTest();

/** One line on two launchers of this host, with one and two ranks. */
async function onTwoHosts(...line: string[]) {
  const env = { DITRUN_JOB_KEY: makeJobKey() };
  const where = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", await freePort()];
  const start = (node: string, nproc: string) =>
    folder.start([...where, "--node-rank", node, "--nproc", nproc, ...line], env);
  return Promise.all([start("0", "1"), start("1", "2")]);
}

test("ranks of several hosts know their places, each host shows its own lines", async () => {
  const names = "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $GROUP_RANK $GROUP_WORLD_SIZE $ROLE_RANK";
  const [first, second] = await onTwoHosts("--role", "r", "sh", "-c", `echo "${names} $ROLE_NAME $MASTER_PORT"`);
  const places = (text: string) =>
    text
      .split("\n")
      .map((line) => line.replace(/ \d+$/, ""))
      .sort();
  const ports = `${first.stdout}\n${second.stdout}`.split("\n").map((line) => line.split(" ").at(-1));
  expect(places(first.stdout)).toEqual([expect.stringMatching(/^\[rank 0 \S+\] 0 0 3 1 0 2 0 r$/)]);
  expect(places(second.stdout)).toEqual([
    expect.stringMatching(/^\[rank 1 \S+\] 1 0 3 2 1 2 1 r$/),
    expect.stringMatching(/^\[rank 2 \S+\] 2 1 3 2 1 2 2 r$/),
  ]);
  expect(new Set(ports).size).toBe(1);
  expect([first.exitCode, second.exitCode]).toEqual([0, 0]);
});

test("both launchers name the same rank and its exception, start again, and end with its code", async () => {
  const lines = 'echo "Traceback (most recent call last):" >&2; echo "  File x" >&2; echo "KeyError: 7" >&2';
  const failing = `if [ $RANK = 2 ]; then ${lines}; exit 9; fi; sleep 100 & wait`;
  const [first, second] = await onTwoHosts("--max-restarts", "1", "sh", "-c", failing);
  for (const { exitCode, stderr } of [first, second]) {
    expect(stderr).toMatch(/^ditrun: Rank 2 .* exited with code 9: KeyError: 7\. /m);
    expect(exitCode).toBe(9);
  }
  expect(first.stderr).toContain("ditrun: All ranks are started again: restart 1 of 1.");
});
