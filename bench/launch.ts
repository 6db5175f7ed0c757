// ditrun run beside torchrun in the same run: the first line and all lines of N ranks, a killed rank until all is gone, the
// launcher's memory. Rounds are interleaved; medians are told.
//   npx tsx bench/launch.ts [--ranks 8] [--rounds 5] [--torchrun torchrun] [--python /usr/bin/python3]       (npm run build -- --typescript before)
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { packageRoot } from "../src/paths.js";

const { values } = parseArgs({
  options: {
    ...{ ranks: { type: "string" }, rounds: { type: "string" } },
    ...{ torchrun: { type: "string" }, python: { type: "string" } },
  },
});
const ranks = Number(values.ranks ?? 8);
const rounds = Number(values.rounds ?? 5);
const torchrun = values.torchrun ?? "torchrun";
/** The same for both: a version manager's takes tenths of a second more. */
const PYTHON_EXEC = values.python ?? "/usr/bin/python3";

const folder = mkdtempSync(join(tmpdir(), "ditrun-bench-"));
const script = join(folder, "rank.py");
writeFileSync(script, "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(1000)\n");

interface Round {
  readonly firstLine: number;
  readonly allLines: number;
  readonly killedToGone: number;
  readonly memory: number;
}

const launchers: Readonly<Record<string, readonly string[]>> = {
  ditrun: ["node", join(packageRoot, "bin", "ditrun.js"), "run", "--log-level", "silent", "--nproc", String(ranks)],
  // 1.13 under Python 3.11, as Debian has it, runs with these alone: its parser makes None of 0 and 3.
  // Newer ones look for ended ranks every 0.1 s, this one every 5 s unless it is told.
  torchrun: [
    ...[torchrun, "--standalone", "--nproc_per_node", String(ranks), "--monitor_interval", "0.1"],
    ...["--redirects", "1", "--tee", "1"],
  ],
};

/** Seconds, and MiB. */
function measure([program = "", ...words]: readonly string[]): Promise<Round> {
  return new Promise((resolve, reject) => {
    const began = performance.now();
    const child = spawn(program, [...words, script], {
      stdio: ["ignore", "pipe", "ignore"],
      env: { ...process.env, PYTHON_EXEC },
    });
    const pids: number[] = [];
    const times = { first: 0, all: 0, killed: 0, memory: 0 };
    child.once("error", reject);
    child.stdout.on("data", (piece: Buffer) => {
      const now = performance.now();
      pids.push(...[...piece.toString().matchAll(/(\d+)\s*$/gm)].map(([, pid]) => Number(pid)));
      times.first ||= now;
      if (pids.length < ranks || times.all > 0) return;
      times.all = now;
      times.memory = Number(/^VmHWM:\s*(\d+)/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]) / 1024;
      setTimeout(() => {
        times.killed = performance.now();
        process.kill(pids[1] ?? pids[0] ?? 0, "SIGKILL");
      }, 500);
    });
    child.once("exit", () => {
      const { first, all, killed, memory } = times;
      if (killed === 0) {
        reject(new Error(`ended after ${pids.length} of ${ranks} lines`));
        return;
      }
      const seconds = (from: number, to: number) => (to - from) / 1000;
      resolve({
        ...{ firstLine: seconds(began, first), allLines: seconds(began, all), memory },
        killedToGone: seconds(killed, performance.now()),
      });
    });
  });
}

const found: Record<string, Round[]> = {};
for (let round = 0; round < rounds; round++) {
  for (const [name, line] of Object.entries(launchers)) {
    const measured = await measure(line).catch((error: unknown) => {
      console.log(`${name}: ${String(error)}`);
      return undefined;
    });
    if (measured) found[name] = [...(found[name] ?? []), measured];
  }
}
rmSync(folder, { recursive: true });

const median = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;
console.log(`${ranks} ranks, medians of ${rounds} rounds`);
for (const [name, all] of Object.entries(found)) {
  const of = (key: keyof Round) => median(all.map((each) => each[key]));
  console.log(
    `${name}: first line ${of("firstLine").toFixed(2)} s, all lines ${of("allLines").toFixed(2)} s, killed to gone ${of("killedToGone").toFixed(2)} s, launcher ${of("memory").toFixed(0)} MiB`,
  );
}
