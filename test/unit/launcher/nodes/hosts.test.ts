import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { curvePairs, makeJobKey } from "../../../../src/launcher/nodes/job-key.js";
import { SimulatedHosts } from "./simulated-hosts.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-hosts-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Notes its process id, and waits until all ranks have. */
const noted = (size: number) =>
  `echo $$ > ${folder}/pid$RANK; while [ $(ls ${folder} | grep -c pid) -lt ${size} ]; do sleep 0.02; done`;

function expectAllGone(count: number): void {
  const pids = readdirSync(folder).filter((name) => name.startsWith("pid"));
  expect(pids).toHaveLength(count);
  expect(pids.filter((name) => existsSync(`/proc/${readFileSync(join(folder, name), "utf8").trim()}`))).toEqual([]);
}

test("each rank knows its place among all hosts", async () => {
  const names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE MASTER_ADDR DITRUN_ADDRESS";
  const hosts = new SimulatedHosts(3, 2, () => `for n in ${names}; do eval echo $n=\\$$n; done > ${folder}/$RANK`);
  const ends = await hosts.runAll();
  expect(ends.map(({ exitCode, error }) => [exitCode, error?.message])).toEqual(Array(3).fill([0, undefined]));
  const places = Array.from({ length: 6 }, (_, rank) =>
    Object.fromEntries(
      readFileSync(join(folder, String(rank)), "utf8")
        .trim()
        .split("\n")
        .map((line) => line.split("=")),
    ),
  );
  for (const [rank, place] of places.entries()) {
    expect(place).toEqual({
      ...{ RANK: String(rank), LOCAL_RANK: String(rank % 2), WORLD_SIZE: "6", LOCAL_WORLD_SIZE: "2" },
      ...{ GROUP_RANK: String(Math.floor(rank / 2)), GROUP_WORLD_SIZE: "3", MASTER_ADDR: "127.0.0.1" },
      DITRUN_ADDRESS: "127.0.0.1",
    });
  }
});

describe("every launcher names the same first cause, and nothing is left on any host", () => {
  test.each([
    [
      "a code, on another host",
      3,
      "echo first; echo the reason >&2; exit 7",
      7,
      "exited with code 7",
      ["  the reason"],
    ],
    ["a signal, on another host", 2, "kill -SEGV $$", 139, "was killed by SIGSEGV", []],
    ["a code, on node 0", 1, "exit 9", 9, "exited with code 9", []],
    ["a program that is not there", 2, "exec /nowhere/program", 127, "exited with code 127", ["not found"]],
  ])("%s", async (_name, culprit, line, code, how, tail) => {
    const other = "trap '' TERM; sleep 1000 & sleep 1000";
    const hosts = new SimulatedHosts(2, 2, (rank) => `${noted(4)}; ${rank === culprit ? line : other}`);
    const began = performance.now();
    const ends = await hosts.runAll();
    for (const { exitCode, error, at } of ends) {
      expect(error?.message).toMatch(new RegExp(`^Rank ${culprit} \\(.+, process \\d+\\) ${how}`));
      for (const words of tail) expect(error?.message).toContain(words);
      expect(exitCode).toBe(code);
      expect(error).toMatchObject({ rank: culprit });
      expect(at - began).toBeLessThan(15_000);
    }
    expect(new Set(ends.map(({ error }) => error?.message)).size).toBe(1);
    expectAllGone(4);
  });

  test("the first of two, though the news of the second came first", async () => {
    // Node 0's rank is a victim: it ends as soon as it sees that the other has.
    const hosts = new SimulatedHosts(2, 1, (rank) =>
      rank === 1
        ? `${noted(2)}; exit 5`
        : `${noted(2)}; while kill -0 $(cat ${folder}/pid1) 2>/dev/null; do sleep 0.01; done; exit 6`,
    );
    const ends = await hosts.runAll();
    expect(ends.map(({ exitCode }) => exitCode)).toEqual([5, 5]);
    expectAllGone(2);
  });

  test("the same, where the clocks of the hosts jump by hours", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    let turn = 0;
    const jumping = setInterval(() => vi.setSystemTime(1e12 + (turn++ % 3) * 3_600_000), 5);
    try {
      const victim = `while kill -0 $(cat ${folder}/pid1) 2>/dev/null; do sleep 0.01; done; exit 6`;
      const hosts = new SimulatedHosts(2, 2, (rank) => `${noted(4)}; ${rank === 1 ? "exit 5" : victim}`);
      const ends = await hosts.runAll();
      expect(ends.map(({ exitCode }) => exitCode)).toEqual([5, 5]);
      expect(new Set(ends.map(({ error }) => error?.message)).size).toBe(1);
    } finally {
      clearInterval(jumping);
      vi.useRealTimers();
    }
    expectAllGone(4);
  });

  test.each([0, 1])("a signal to the launcher of node %i", async (node) => {
    const hosts = new SimulatedHosts(2, 1, () => `${noted(2)}; sleep 1000`);
    const all = hosts.runAll();
    await vi.waitFor(() => expect(readdirSync(folder)).toHaveLength(2), { timeout: 20_000 });
    hosts.interrupt(node, "SIGTERM");
    for (const { exitCode, error } of await all) {
      expect(error?.message).toContain("The job was ended by SIGTERM.");
      expect(exitCode).toBe(143);
    }
    expectAllGone(2);
  });
});

describe("hosts that do not belong, or do not come", () => {
  const quick = (rank: number) => `: ${rank}`;

  test("with another key: refused at once, and the job goes on without them", async () => {
    const hosts = new SimulatedHosts(2, 1, quick);
    await hosts.lead();
    const stranger = await hosts.follow(1, { key: makeJobKey() });
    expect(stranger.error).toMatchObject({ code: "ERR_JOB_KEY", message: expect.stringContaining("same key") });
    void hosts.follow(1);
    expect((await hosts.run()).exitCode).toBe(0);
    expect(hosts.warnings[0]).toContain("does not show this job's key");
    expect(hosts.warnings.length).toBeLessThan(8);
  });

  test.each([
    ["a second node 1", { node: 1 }, "There is a node 1 already"],
    ["a second node 0", { node: 0 }, "There is a node 0 already, on host0"],
    ["one too many", { node: undefined }, "All 2 hosts"],
    ["another version", { version: "2" }, "has ditrun 2, but node 0 has 1"],
    ["another command", { command: "other" }, "another command"],
    ["another count", { nodes: 3 }, "was told of 3 hosts, node 0 of 2"],
    ["an attempt before", { job: "slurm-1.0-0" }, "another job or attempt, slurm-1.0-0"],
  ])("%s is refused by name, and the job goes on", async (_name, changes, words) => {
    const hosts = new SimulatedHosts(2, 1, quick);
    const leader = await hosts.lead();
    const first = hosts.follow(1);
    await vi.waitFor(() => expect(leader.members).toHaveLength(1), { timeout: 20_000 });
    const { error, exitCode } = await hosts.follow(undefined, changes);
    expect(error?.message).toContain(words);
    expect(exitCode).toBe(4);
    expect(hosts.warnings.some((sentence) => sentence.includes(words))).toBe(true);
    expect((await hosts.run()).exitCode).toBe(0);
    expect((await first).exitCode).toBe(0);
  });

  test("those that do not come are named on every host", async () => {
    const hosts = new SimulatedHosts(3, 1, quick, 1);
    const [leader, follower] = await (async () => {
      await hosts.lead();
      const followed = hosts.follow(2);
      return [await hosts.run(), await followed] as const;
    })();
    for (const { error, exitCode } of [leader, follower]) {
      expect(error?.message).toMatch(
        /^1 host of 3 did not come within 1 s: node 1\. Here are node 0 \(host0\), node 2 \(.+\)/,
      );
      expect(exitCode).toBe(4);
    }
  });

  test("a leader that does not come is told of with its address", async () => {
    const hosts = new SimulatedHosts(2, 1, quick, 1);
    const leader = await hosts.lead();
    const { port } = leader;
    const keys = curvePairs(hosts.key, "the test");
    const locate = async () => ({ host: "127.0.0.1", port, keys, mayChange: false });
    leader.close();
    const { error, exitCode } = await hosts.follow(1, { locate, timeoutSeconds: 1 });
    expect(error?.message).toContain(
      `Node 0 did not answer at 127.0.0.1, port ${port}, within 1 s (nobody answers there)`,
    );
    expect(exitCode).toBe(4);
  });

  test("hosts without numbers get them as they come", async () => {
    const hosts = new SimulatedHosts(3, 1, () => `echo $GROUP_RANK > ${folder}/$RANK`);
    await hosts.lead();
    void hosts.follow(undefined);
    void hosts.follow(undefined);
    expect((await hosts.run()).exitCode).toBe(0);
    expect(readdirSync(folder).map((name) => readFileSync(join(folder, name), "utf8").trim())).toEqual(["0", "1", "2"]);
  });
});
