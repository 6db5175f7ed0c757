import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { expect, test, vi } from "vitest";
import { packageRoot } from "../../src/paths.js";
import { RunFolder } from "./run.js";

/** Set by test/slurm.sh, where Slurm's daemons run. */
const { SLURM_NODES = "" } = process.env;
const testWithSlurm = test.skipIf(SLURM_NODES === "");

const folder = RunFolder.ofEachTest();
const binary = join(packageRoot, "bin", "ditrun.js");

/** What ditrun keeps for the user; the meeting of the launchers is written there. */
const home = () => join(folder.path, "home");
const meetings = () => readdirSync(join(home(), ".cache", "ditrun", "jobs"));

/** Starts a program of Slurm's; all that comes of it carries the folder's name. */
function slurm(program: string, args: readonly string[], env: Record<string, string> = {}) {
  mkdirSync(home(), { recursive: true });
  return execa(program, args, {
    reject: false,
    stdin: "ignore",
    env: { HOME: home(), TMPDIR: folder.path, RUN_FOLDER: folder.path, DITRUN_KERNELS: "", ...env },
  });
}

const srun = (nodes: number, ...ditrun: string[]) =>
  slurm("srun", [`--nodes=${nodes}`, "--ntasks-per-node=1", "node", binary, ...ditrun]);

/** The words of each rank's line, without its prefix, in order. */
const linesOf = (stdout: string) =>
  stdout
    .split("\n")
    .map((line) => line.replace(/^\[rank \d+ \S+\] /, ""))
    .sort();

testWithSlurm("srun ditrun run: ranks of four nodes know their places, and nothing was given but --nproc", async () => {
  const names = "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $GROUP_RANK $GROUP_WORLD_SIZE";
  const ended = await srun(
    4,
    "run",
    "--nproc",
    "2",
    "sh",
    "-c",
    `echo ${names} $SLURMD_NODENAME $MASTER_ADDR $MASTER_PORT`,
  );
  expect(ended).toMatchObject({ exitCode: 0 });
  const lines = linesOf(ended.stdout).map((line) => line.split(" "));
  expect(lines.map((words) => words.slice(0, 7).join(" "))).toEqual(
    Array.from({ length: 8 }, (_, rank) => {
      const node = Math.floor(rank / 2);
      return `${rank} ${rank % 2} 8 2 ${node} 4 n${node + 1}`;
    }),
  );
  expect(new Set(lines.map((words) => words.slice(7).join(":"))).size).toBe(1);
  expect(ended.stderr).toMatch(
    /This is node 3 of 4, by Slurm \(SLURM_STEP_NUM_NODES, SLURM_NODEID, SLURM_STEP_NODELIST\)/,
  );
  expect(meetings()).toEqual([]);
});

testWithSlurm("srun ditrun profile: one plan over two nodes, one document", async () => {
  const document = join(folder.path, "result.json");
  const layout = ["--nproc", "2", "--cp", "2", "--tp", "2"];
  const { exitCode, stderr } = await srun(2, "profile", "--device", "cpu", ...layout, "--json", document);
  expect(stderr).toContain("All 2 hosts are there");
  expect(stderr.match(/^dit-tiny, plan cp2×tp2 \(bf16\), 4 workers, /gm)).toHaveLength(1);
  expect(exitCode).toBe(0);
  expect(JSON.parse(readFileSync(document, "utf8"))).toMatchObject({ command: "profile", deviceKind: "cpu" });
});

testWithSlurm(
  "a rank that fails on the second node is the first cause of both launchers, and srun's code",
  async () => {
    const failing =
      "if [ $RANK = 3 ]; then sleep 0.5; echo 'KeyError: 7' >&2; exit 7; fi; setsid sleep 100 & sleep 100";
    const { exitCode, stderr } = await srun(2, "run", "--nproc", "2", "sh", "-c", failing);
    expect(stderr.match(/^ditrun: Rank 3 \(.+\) exited with code 7\. Its last lines on stderr:$/gm)).toHaveLength(2);
    expect(stderr).toContain("ditrun: Victims, not the cause: ranks 0, 1 and 2 were ended.");
    expect(exitCode).toBe(7);
    expect(meetings()).toEqual([]);
  },
);

testWithSlurm("a warning of Slurm's is told, and scancel ends all of it", async () => {
  const began = (rank: number) => existsSync(join(folder.path, String(rank)));
  const deaf = `trap '' USR1; setsid sleep 100 & touch ${folder.path}/$RANK; sleep 100`;
  const running = srun(2, "run", "--nproc", "2", "sh", "-c", deaf);
  await vi.waitFor(() => expect([0, 1, 2, 3].map(began)).toEqual([true, true, true, true]), { timeout: 30_000 });
  const { stdout: job } = await slurm("squeue", ["--noheader", "--format=%i"]);
  await slurm("scancel", ["--signal=USR1", job.trim()]);
  await slurm("scancel", [job.trim()]);
  const { exitCode, stderr } = await running;
  expect(stderr.match(/^ditrun: SIGUSR1 is taken as the warning of a scheduler; the job goes on\.$/gm)).toHaveLength(2);
  expect(stderr).toMatch(/^ditrun: .*The job was ended by SIGTERM\.$/m);
  expect(exitCode).toBe(143);
  expect(meetings()).toEqual([]);
  // The folder's own look at its processes follows, after which nothing may run.
});

testWithSlurm("two steps of one job at once are two jobs", async () => {
  const step = (name: string) =>
    `srun --overlap --nodes=2 --ntasks-per-node=1 node ${binary} run sh -c 'sleep 1; echo ${name} $RANK of $WORLD_SIZE'`;
  const ended = await slurm("salloc", ["--nodes=2", "sh", "-c", `${step("a")} & ${step("b")} & wait`]);
  expect(linesOf(ended.stdout)).toEqual(["a 0 of 2", "a 1 of 2", "b 0 of 2", "b 1 of 2"]);
  expect(meetings()).toEqual([]);
});

testWithSlurm("several tasks on a node are refused; a batch script without srun says that it is alone", async () => {
  const two = await slurm("srun", ["--nodes=1", "--ntasks=2", "node", binary, "run", "true"]);
  expect(two.exitCode).toBe(2);
  expect(two.stderr.match(/Slurm started 2 tasks on 1 node.*: use srun --nodes=1 --ntasks-per-node=1/g)).toHaveLength(
    2,
  );
  const out = join(folder.path, "batch.out");
  const batch = ["--wait", "--nodes=2", `--output=${out}`, "--wrap", `node ${binary} run sh -c 'echo $WORLD_SIZE'`];
  expect(await slurm("sbatch", batch)).toMatchObject({ exitCode: 0 });
  const said = readFileSync(out, "utf8");
  expect(said).toContain("Slurm gave this job 2 nodes (SLURM_JOB_NUM_NODES), but ditrun was started without srun");
  expect(said).toContain("[rank 0] 1\n");
});

testWithSlurm.each(["generate.sbatch", "profile.sbatch"])("sbatch takes examples/slurm/%s", async (name) => {
  const { exitCode, stderr } = await slurm("sbatch", [
    "--test-only",
    join(packageRoot, "examples", "slurm", name),
    "A car",
  ]);
  expect([exitCode, stderr]).toEqual([0, expect.stringMatching(/^sbatch: Job \d+ to start at .* on nodes n\[1-2\]/m)]);
});
