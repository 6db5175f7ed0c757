// Launches with a random fault at a random time: the cause must be the fault, and nothing may be left.
//   npx tsx test/soak.ts [--launches 500] [--seed 1]          (npm run build -- --typescript before)
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { execa } from "execa";
import { DitrunError } from "../src/failure.js";
import { runAttempts } from "../src/launcher/attempts.js";
import { openOwnLog } from "../src/launcher/logs.js";
import { packageRoot } from "../src/paths.js";
import { processesWith } from "./processes.js";
import { generator } from "./random.js";
import { SimulatedHosts } from "./unit/launcher/nodes/simulated-hosts.js";

/** A fault of one rank: lines of sh, and what must be said of them. */
interface Fault {
  readonly name: string;
  readonly script: string;
  readonly expected: { readonly code: string; readonly exitCode: number } | undefined;
}

const signals = { SEGV: 11, KILL: 9, ABRT: 6, BUS: 7, TERM: 15, HUP: 1 } as const;
const failed = (exitCode: number) => ({ code: "ERR_RANK_FAILED", exitCode });

const faults: readonly Fault[] = [
  ...Object.entries(signals).map(([name, number]) => ({
    ...{ name: `SIG${name}`, script: `kill -${name} $$; sleep 100` },
    expected: { code: "ERR_RANK_SIGNAL", exitCode: 128 + number },
  })),
  { name: "exit 3", script: "exit 3", expected: failed(3) },
  { name: "a last line without an end", script: "printf why >&2; exit 4", expected: failed(4) },
  { name: "a child left in its own session", script: "setsid sleep 100 & exit 5", expected: failed(5) },
  { name: "an exception", script: "echo Traceback >&2; exit 1", expected: failed(1) },
  { name: "nothing", script: "exit 0", expected: undefined },
];

/** What the other ranks do meanwhile. */
const bystanders = [
  "sleep 100 & wait",
  "trap '' TERM; while :; do sleep 0.1; done",
  "setsid sh -c 'sleep 100; true' & wait",
  "while :; do echo a line; sleep 0.01; done",
  "kill -STOP $$",
] as const;

export interface SoakOptions {
  readonly launches: number;
  readonly seed: number;
  readonly tell?: (sentence: string) => void;
}

/** @returns what was wrong, a sentence each; nothing is right. */
export async function soak({ launches, seed, tell }: SoakOptions): Promise<string[]> {
  const random = generator(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] ?? fail();
  const folder = mkdtempSync(join(tmpdir(), "ditrun-soak-"));
  const temporary = join(folder, "tmp");
  mkdirSync(temporary);
  const before = { shared: readdirSync("/dev/shm"), files: 0 };
  const wrong: string[] = [];
  for (let launch = 0; launch < launches; launch++) {
    const nproc = 1 + Math.floor(random() * 4);
    const culprit = Math.floor(random() * nproc);
    const fault = pick(faults);
    const others = fault.expected === undefined ? "exit 0" : pick(bystanders);
    const delay = (random() * 0.2).toFixed(3);
    const script = `if [ $RANK = ${culprit} ]; then sleep ${delay}; ${fault.script}; fi; ${others}`;
    const where = fault.expected !== undefined && random() < 0.1 ? pick(["SIGKILL", "SIGTERM"] as const) : undefined;
    const mark = `SOAK=${folder}/${launch}`;
    const restarts = fault.expected !== undefined && random() < 0.15 ? 1 : 0;
    const hosts = where === undefined && restarts === 0 && random() < 0.15;
    const kind = hosts ? " on each of two hosts" : restarts > 0 ? ", started again once" : "";
    const what = `Launch ${launch} (${where ?? fault.name} after ${delay} s of rank ${culprit} of ${nproc}${kind}; the others: ${others})`;
    const said =
      where !== undefined
        ? await launcherEnded(others, nproc, where, Number(delay), mark, temporary)
        : hosts
          ? await onTwoHosts(script, nproc, fault, culprit, mark)
          : await inProcess(script, nproc, fault, culprit, mark, restarts);
    if (said !== undefined) wrong.push(`${what}: ${said}`);
    for (let look = 0; processesWith(mark).length > 0; look++) {
      if (look < 100) {
        await sleep(20);
        continue;
      }
      const left = processesWith(mark);
      for (const pid of left) process.kill(pid, "SIGKILL");
      wrong.push(`${what}: left ${left.length} processes.`);
    }
    const files = readdirSync("/proc/self/fd").length;
    if (launch === 0) before.files = files;
    // A leader's and a follower's context of ZeroMQ stay for the next job, with five files each.
    if (files > before.files + 18) wrong.push(`${what}: ${files} files are open, ${before.files} were.`);
    if (launch % 50 === 49) tell?.(`${launch + 1} launches, ${wrong.length} wrong.`);
  }
  const shared = readdirSync("/dev/shm").filter((name) => /ditrun/.test(name) && !before.shared.includes(name));
  if (shared.length > 0) wrong.push(`Left in /dev/shm: ${shared.join(", ")}.`);
  // Of launchers that were killed, the next one removes the folder; the last one stays.
  const left = readdirSync(temporary);
  if (left.length > 1) wrong.push(`Left in the temporary folder: ${left.join(", ")}.`);
  rmSync(folder, { recursive: true });
  return wrong;
}

async function inProcess(
  script: string,
  nproc: number,
  fault: Fault,
  culprit: number,
  mark: string,
  maxRestarts: number,
) {
  const [name = "", value = ""] = mark.split("=");
  let restarts = 0;
  const error: unknown = await runAttempts({
    ...{ id: "soak", nproc, log: openOwnLog(), maxRestarts, asking: { milliseconds: 100 } },
    onRestart: (number) => {
      restarts = number;
    },
    program: ({ rank }) => ({
      command: ["sh", "-c", script],
      environment: { RANK: String(rank), [name]: value },
      stdin: "empty",
    }),
  }).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return (
    wrongEnd(error, fault, culprit) ?? (restarts === maxRestarts ? undefined : `was started again ${restarts} times`)
  );
}

/** So many ranks on each of two hosts, whose launchers are in this process. */
async function onTwoHosts(script: string, nproc: number, fault: Fault, culprit: number, mark: string) {
  const [name = "", value = ""] = mark.split("=");
  process.env[name] = value;
  try {
    const ends = await new SimulatedHosts(2, nproc, () => script).runAll();
    return ends.map(({ error }) => wrongEnd(error, fault, culprit)).find((wrong) => wrong !== undefined);
  } finally {
    delete process.env[name];
  }
}

function wrongEnd(error: unknown, { expected }: Fault, culprit: number): string | undefined {
  if (expected === undefined) return error === undefined ? undefined : `failed: ${String(error)}`;
  if (!(error instanceof DitrunError)) return `ended with ${String(error)}`;
  const right = error.rank === culprit && error.code === expected.code && error.exitCode === expected.exitCode;
  return right ? undefined : `said ${error.code}, exit code ${error.exitCode}: ${error.message}`;
}

async function launcherEnded(
  script: string,
  nproc: number,
  signal: "SIGKILL" | "SIGTERM",
  delay: number,
  mark: string,
  temporary: string,
) {
  const [name = "", value = ""] = mark.split("=");
  const line = [join(packageRoot, "bin", "ditrun.js"), "run", "--nproc", String(nproc), "--shutdown-timeout", "0.1"];
  const run = execa("node", [...line, "sh", "-c", `echo; ${script}`], {
    ...{ reject: false, stdin: "ignore", env: { [name]: value, TMPDIR: temporary } },
  });
  run.stdout.once("data", () => void sleep(1000 * delay).then(() => run.kill(signal)));
  const ended = await run;
  const right = signal === "SIGKILL" ? ended.signal === "SIGKILL" : ended.exitCode === 143;
  return right ? undefined : `ended with ${ended.exitCode ?? ended.signal}: ${ended.stderr}`;
}

function fail(): never {
  throw new Error("There is nothing to pick from.");
}

if (process.argv[1]?.endsWith("soak.ts")) {
  const { values } = parseArgs({ options: { launches: { type: "string" }, seed: { type: "string" } } });
  const { launches = "500", seed = "1" } = values;
  const wrong = await soak({ launches: Number(launches), seed: Number(seed), tell: (text) => console.log(text) });
  for (const sentence of wrong) console.log(sentence);
  console.log(`${launches} launches with the seed ${seed}: ${wrong.length} wrong.`);
  process.exitCode = wrong.length === 0 ? 0 : 1;
}
