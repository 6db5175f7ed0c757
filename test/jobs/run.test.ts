import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { RunFolder } from "./run.js";

const folder = RunFolder.ofEachTest();

const lines = (text: string) => text.split("\n").sort();

function script(name: string, text: string): string {
  const path = join(folder.path, name);
  writeFileSync(path, text);
  return path;
}

test("a Python script has torchrun's variables and its own words; lines stay on their stream", async () => {
  const names = [
    ...["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK"],
    ...["ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"],
    ...["TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_USE_AGENT_STORE", "TORCH_NCCL_ASYNC_ERROR_HANDLING"],
    ...["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"],
  ];
  const path = script(
    "train.py",
    `import os, sys
print(" ".join(os.environ[name] for name in "${names.join(" ")}".split()), sys.argv[1:])
assert os.path.isdir(os.path.dirname(os.environ["TORCHELASTIC_ERROR_FILE"]))
assert 0 < int(os.environ["MASTER_PORT"]) < 65536
print("a line on stderr", file=sys.stderr)`,
  );
  const env = { OMP_NUM_THREADS: "", CUDA_VISIBLE_DEVICES: "5,7" };
  const options = ["--nproc-per-node", "2", "--rdzv-id", "job 7", "--role", "trainer", "--virtual_local_rank"];
  const { exitCode, stdout, stderr } = await folder.start([...options, path, "--lr", "1e-3"], env);
  const rank = (n: number, gpu: string) =>
    `[rank ${n}] ${n} 0 2 2 0 1 ${n} 2 trainer 127.0.0.1 job 7 0 0 False 1  ${gpu} ['--lr', '1e-3']`;
  expect(lines(stdout)).toEqual([rank(0, "5"), rank(1, "7")]);
  expect(lines(stderr)).toEqual([
    "[rank 0] a line on stderr",
    "[rank 1] a line on stderr",
    expect.stringMatching(/^ditrun: 2 ranks of \S*python3? -u \S+train\.py --lr 1e-3\.$/),
  ]);
  expect(exitCode).toBe(0);
  expect(folder.files()).toEqual(["train.py"]);
});

test("--max-restarts starts all ranks again, each time with another port and files of its own", async () => {
  const attempt = 'echo "$RANK $TORCHELASTIC_RESTART_COUNT $TORCHELASTIC_MAX_RESTARTS $MASTER_PORT"';
  const command = `${attempt}; [ $TORCHELASTIC_RESTART_COUNT = 2 ] || { [ $RANK = 0 ] && exec sleep 100; exit 9; }`;
  const logs = join(folder.path, "logs");
  const json = `--json=${join(folder.path, "result.json")}`;
  const args = ["--nproc", "2", "--max-restarts", "3", "--log-dir", logs, "--rdzv-id", "../job", json];
  const { exitCode, stdout, stderr } = await folder.start([...args, "--", "sh", "-c", command]);
  expect(exitCode).toBe(0);
  expect(stderr.match(/^ditrun: Rank 1 .* exited with code 9\.$/gm)).toHaveLength(2);
  expect(stderr).toContain("ditrun: All ranks are started again: restart 2 of 3.");
  const said = lines(stdout).map((line) => line.split(" "));
  expect(said.map(([, , rank, count]) => `${rank} ${count}`)).toEqual(["0 0", "0 1", "0 2", "1 0", "1 1", "1 2"]);
  expect(new Set(said.map((words) => words.at(-1))).size).toBe(3);
  const [job = ""] = readdirSync(logs).filter((name) => name !== "launcher.log");
  expect(readdirSync(join(logs, job)).sort()).toEqual(["attempt-0", "attempt-1", "attempt-2"]);
  expect(folder.text("logs", job, "attempt-2", "rank-1.stdout.log")).toMatch(/^1 2 3 \d+\n$/);
  expect(JSON.parse(folder.text("result.json"))).toMatchObject({ nproc: 2, restarts: 2 });
});

describe("lines", () => {
  const command = ["sh", "-c", 'echo "out $RANK"; echo "err $RANK" >&2'];

  test("--redirects, --tee and --local-ranks-filter choose where they go", async () => {
    const logs = join(folder.path, "logs");
    const options = ["--nproc", "3", "--log-dir", logs, "-r", "0:3", "--tee", "1:1", "--local-ranks-filter", "0,1"];
    const { stdout, stderr } = await folder.start([...options, ...command]);
    expect(stdout).toBe("[rank 1] out 1");
    expect(stderr.match(/^\[rank.*$/gm)).toEqual(["[rank 1] err 1"]);
    const [job = ""] = readdirSync(logs).filter((name) => name !== "launcher.log");
    expect(readdirSync(join(logs, job, "attempt-0")).sort()).toEqual([
      ...["rank-0.stderr.log", "rank-0.stdout.log", "rank-1.stdout.log"],
    ]);
    expect(folder.text("logs", job, "attempt-0", "rank-0.stderr.log")).toBe("err 0\n");
  });

  test("as JSON, and a failing rank's stderr is told though it is filtered out", async () => {
    const options = ["--nproc", "2", "--log-format", "json", "--local-ranks-filter", "0"];
    const failing = ["sh", "-c", 'echo "out $RANK"; echo "why $RANK" >&2; sleep 1; exit $RANK'];
    const { exitCode, stdout, stderr } = await folder.start([...options, ...failing]);
    expect(JSON.parse(stdout)).toMatchObject({ rank: 0, stream: "stdout", line: "out 0", host: expect.any(String) });
    expect(stderr).toMatch(/Rank 1 .* exited with code 1\. Its last lines on stderr:\n {2}why 1\n/);
    expect(stderr).not.toContain("why 1\\");
    expect(exitCode).toBe(1);
  });

  test("colours pass, what else steers a terminal does not, and a progress bar's states are lines", async () => {
    const text = String.raw`\033[31mred\033[0m and \033[2J\n\r 10%%\r 20%%\r\n`;
    const { stdout } = await folder.start(["printf", text]);
    expect(stdout.split("\n")).toEqual([
      "[rank 0] \x1b[31mred\x1b[0m and \\x1b[2J\x1b[0m",
      ...["[rank 0]  10%", "[rank 0]  20%"],
    ]);
  });

  test("whole lines of eight ranks at once, none lost", async () => {
    const write = "import sys\nfor i in range(4000): print('line', i, 'x' * (i % 200))\nsys.stdout.write('the end')";
    const { stdout, exitCode } = await folder.start(["--nproc", "8", "--", "python3", "-c", write]);
    expect(exitCode).toBe(0);
    const all = stdout.split("\n");
    for (let rank = 0; rank < 8; rank++) {
      const own = all.filter((line) => line.startsWith(`[rank ${rank}] `)).map((line) => line.slice(9));
      expect(own.length).toBe(4001);
      expect(own.at(-1)).toBe("the end");
      expect(own.slice(0, -1).every((line, i) => line === `line ${i} ${"x".repeat(i % 200)}`)).toBe(true);
    }
    expect(all).toHaveLength(8 * 4001);
  });
});

test("one host may be described as torchrun's; several are refused, and what has no effect is said", async () => {
  const one = ["--nnodes", "1:1", "--node-rank", "0", "--rdzv-backend", "c10d", "--monitor-interval", "5"];
  const { exitCode, stderr } = await folder.start([...one, "true"]);
  expect(stderr).toContain("ditrun: No effect here: --rdzv-backend, --monitor-interval.");
  expect(exitCode).toBe(0);
});

test("a dry run starts nothing", async () => {
  const { exitCode, stdout } = await folder.start(["--dry-run", "--nproc", "cpu", "--json", "false"]);
  expect(JSON.parse(stdout)).toMatchObject({ dryRun: true, command: ["false"] });
  expect(exitCode).toBe(0);
});
