import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test, vi } from "vitest";
import { type SimulatedHosts, startHosts as startAll } from "./hosts.js";
import { Pids, start } from "./launch.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-hosts-"));
afterAll(() => rmSync(folder, { recursive: true }));

let end = () => {};
afterEach(() => end());

async function startHosts(hosts: SimulatedHosts) {
  const started = await startAll(hosts);
  end = started.end;
  return started;
}

/** What launchers say of how it ended. */
const causeOf = (stderr: string) => /^ditrun: (Rank|Host|Node 0 at|The job was) .*$/m.exec(stderr)?.[0] ?? stderr;

test("a job over two launchers: node 0 has the result, and the first cause is the same everywhere", async () => {
  const { launch, pids } = await startHosts({ nodes: 2, nproc: 2, behaviour: { 1: "ignore SIGTERM", 3: "SIGSEGV" } });
  const document = join(folder, "result.json");
  const [leader, follower] = await Promise.all([launch(0, ["--json", document]), launch(1, ["--json", document])]);
  expect(causeOf(leader.stderr)).toMatch(/^ditrun: Rank 3 \(.+, process \d+\) was killed by SIGSEGV\./);
  expect(causeOf(follower.stderr)).toBe(causeOf(leader.stderr));
  expect([leader.exitCode, follower.exitCode]).toEqual([139, 139]);
  for (const { stderr } of [leader, follower]) expect(stderr).toContain("  about to read address 0");
  expect(JSON.parse(readFileSync(document, "utf8"))).toMatchObject({ error: { code: "ERR_RANK_SIGNAL", rank: 3 } });
  expect(leader.stderr).not.toContain("[rank 3]");
  expect(follower.stderr).toContain("[rank 3] about to read address 0");
  await pids.expectGone(4);
});

describe("a launcher that is killed", () => {
  const behaviour = { 0: "wait at a barrier", 1: "hang" };
  const two: SimulatedHosts = { nodes: 2, nproc: 1, behaviour };

  test("of another host is named, and its ranks", async () => {
    const { launch, pids } = await startHosts(two);
    const [leader, follower] = [launch(0), launch(1)];
    await pids.started(2);
    follower.kill("SIGKILL");
    const { stderr, exitCode } = await leader;
    expect(causeOf(stderr)).toMatch(/^ditrun: Host .+ \(node 1\) is lost with rank 1: its launcher was killed/);
    expect(exitCode).toBe(4);
    await follower;
    await pids.expectGone(2);
  });

  test("of node 0 is named by the others", async () => {
    const { launch, pids } = await startHosts(two);
    const [leader, follower] = [launch(0), launch(1)];
    await pids.started(2);
    leader.kill("SIGKILL");
    const { stderr, exitCode } = await follower;
    expect(causeOf(stderr)).toMatch(/^ditrun: Node 0 at 127\.0\.0\.1 is gone: its launcher was killed/);
    expect(exitCode).toBe(4);
    await leader;
    await pids.expectGone(2);
  });

  test("by SIGTERM on any host ends all with its code", async () => {
    const { launch, pids } = await startHosts(two);
    const [leader, follower] = [launch(0), launch(1)];
    await pids.started(2);
    follower.kill("SIGTERM");
    const ends = await Promise.all([leader, follower]);
    expect(ends.map(({ exitCode }) => exitCode)).toEqual([143, 143]);
    for (const { stderr } of ends)
      expect(stderr).toMatch(/^ditrun: Host .+ \(node 1\): The job was ended by SIGTERM\.$/m);
    await pids.expectGone(2);
  });
});

test("srun needs no option and no key: one task on each node finds the others", async () => {
  const pids = new Pids();
  const home = mkdtempSync(join(folder, "home-"));
  const task = (node: number) =>
    start(["profile", "--device", "cpu", "--nproc", "1", "--cp", "2"], {
      pids,
      env: {
        ...{ HOME: home, SLURM_JOB_ID: "77", SLURM_STEP_ID: "0", SLURM_STEP_NUM_TASKS: "2" },
        ...{ SLURM_STEP_NUM_NODES: "2", SLURM_NODEID: String(node), SLURM_STEP_NODELIST: "nowhere[1-2]" },
      },
    }).process;
  const [first, second] = [task(0), task(1)];
  const jobs = join(home, ".cache", "ditrun", "jobs");
  await vi.waitFor(() => expect(readdirSync(jobs)).toEqual(["slurm-77.0-0.json"]), { timeout: 30_000, interval: 10 });
  const ends = await Promise.all([first, second]);
  expect(ends.map(({ exitCode, stderr }) => [exitCode, stderr.split("\n")[0]])).toEqual([
    [0, expect.stringContaining("This is node 0 of 2, by Slurm")],
    [0, expect.stringContaining("This is node 1 of 2, by Slurm")],
  ]);
  expect(ends[0]?.stdout).toContain("2 workers");
  expect(ends[1]?.stdout).toBe("");
  expect(readdirSync(jobs)).toEqual([]);
  await pids.expectGone(2);
});
