// A server under fire: requests with random cancels and deletions, ranks that are killed, and the server itself killed once. Each
// request must end in exactly one final state, and nothing may be left over; memory must not grow.
//   npx tsx test/soak-serve.ts [--requests 1000] [--seed 1]          (npm run build before)
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { z } from "zod";
import { type Client, createClient } from "../src/client/client.js";
import { DitrunError } from "../src/failure.js";
import { variants } from "../src/serve/variants.js";
import { type Serving, serveTiny } from "./jobs/serving.js";
import { processesWith } from "./processes.js";
import { generator } from "./random.js";

export interface ServeSoakOptions {
  readonly requests: number;
  readonly seed: number;
  /** Ranks that are killed, one at a time. */
  readonly kills: number;
  readonly nproc: number;
  readonly tell?: (sentence: string) => void;
}

export interface ServeSoak {
  /** What was wrong, a sentence each; nothing is right. */
  readonly wrong: readonly string[];
  /** Of the server, in MiB: the means of the first and the last third, since it was started again. */
  readonly residentMiB: { readonly first: number; readonly last: number };
  readonly outcomes: Readonly<Record<string, number>>;
}

const lineSchema = z.union([
  z.object({ put: z.object({ id: z.string(), status: z.string(), error: z.object({ code: z.string() }).optional() }) }),
  z.object({ gone: z.string() }),
]);

/** Requests that may wait: a client that finds the queue full asks again. */
const QUEUE = 32;

export async function soakServe({ requests, seed, kills, nproc, tell }: ServeSoakOptions): Promise<ServeSoak> {
  const random = generator(seed);
  const folder = mkdtempSync(join(tmpdir(), "ditrun-soak-serve-"));
  const data = join(folder, "data");
  const temporary = join(folder, "tmp");
  mkdirSync(temporary);
  const mark = `SOAK_SERVE=${folder}`;
  // Without ffmpeg: the encoder that comes with the package starts sooner.
  const programs = join(folder, "bin");
  mkdirSync(programs);
  symlinkSync("/bin/sh", join(programs, "sh"));
  const environment = { SOAK_SERVE: folder, TMPDIR: temporary, PATH: programs };
  const options = ["--nproc", `${nproc}`, "--size", "32*32", "--queue", `${QUEUE}`];
  const start = () => serveTiny(data, { options, environment });
  const wrong: string[] = [];
  const shared = new Set(readdirSync("/dev/shm"));
  let server = await start();
  /** What became of each request, as the server says; `deleted` where the client has removed it. */
  const finals = new Map<string, string>();
  const open = new Set<string>();
  const memory: number[] = [];
  const killAt = new Set(Array.from({ length: kills }, (_, index) => Math.floor((requests * (index + 0.5)) / kills)));
  const serverKillAt = Math.floor(requests / 3);

  const call = <T>(work: (client: Client) => Promise<T>): Promise<T | undefined> => calling(() => server, work);
  const settle = async () => {
    for (const id of [...open]) {
      const video = await call((client) => client.videos.retrieve(id));
      if (video?.status !== "completed" && video?.status !== "failed") continue;
      open.delete(id);
      finals.set(id, video.error?.code ?? video.status);
    }
  };

  for (let request = 0; request < requests; request++) {
    const body = { prompt: `${request}`, num_inference_steps: random() < 0.1 ? 20 : 1, num_frames: 1, seed: request };
    const video = await call((client) => client.videos.create(body, { idempotencyKey: `${folder}-${request}` }));
    if (!video) {
      wrong.push(`Request ${request} was not accepted.`);
      continue;
    }
    open.add(video.id);
    if (random() < 0.15) {
      const cancelled = random() < 0.7;
      await call(async (client) => {
        if (cancelled) await client.videos.cancel(video.id);
        else await client.videos.delete(video.id);
      });
      if (!cancelled) {
        open.delete(video.id);
        finals.set(video.id, "deleted");
      }
    }
    if (killAt.has(request)) killRank(mark, server, random());
    if (request === serverKillAt) {
      server.kill("SIGKILL");
      await server.ended();
      server = await start();
      memory.length = 0;
    }
    if (open.size > QUEUE / 2) await settle();
    while (open.size > QUEUE) {
      await sleep(100);
      await settle();
    }
    memory.push(residentMiB(server.pid));
    if (request % 50 === 49) tell?.(`${request + 1} requests, ${finals.size} ended, ${memory.at(-1)?.toFixed(0)} MiB.`);
  }
  for (let look = 0; open.size > 0 && look < 600; look++) {
    await settle();
    memory.push(residentMiB(server.pid));
    await sleep(200);
  }
  for (const id of open) wrong.push(`${id} has not ended.`);

  const journal = readFileSync(join(data, "journal.jsonl"), "utf8").trim().split("\n");
  wrong.push(...wrongStates(journal, finals));
  const completed = [...finals].filter(([, outcome]) => outcome === "completed").map(([id]) => id);
  const expected = completed.flatMap((id) => Object.values(variants).map(({ ending }) => `${id}${ending}`));
  const files = readdirSync(join(data, "videos"));
  if (files.toSorted().join() !== expected.toSorted().join()) {
    wrong.push(`There are ${files.length} files where ${completed.length} completed videos have ${expected.length}.`);
  }
  server.kill("SIGTERM");
  const exitCode = await server.ended();
  if (exitCode !== 0) wrong.push(`The server ended with ${exitCode}: ${server.said().slice(-500)}`);
  const processes = processesWith(mark);
  if (processes.length > 0) wrong.push(`${processes.length} processes are left.`);
  for (const pid of processes) process.kill(pid, "SIGKILL");
  const left = readdirSync("/dev/shm").filter((name) => name.includes("ditrun") && !shared.has(name));
  if (left.length > 0) wrong.push(`Left in /dev/shm: ${left.join(", ")}.`);
  // Of the server that was killed the next one removes what it left.
  const temporaries = readdirSync(temporary);
  if (temporaries.length > 0) wrong.push(`Left in the temporary folder: ${temporaries.join(", ")}.`);
  rmSync(folder, { recursive: true });
  const outcomes: Record<string, number> = {};
  for (const outcome of finals.values()) outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  const third = Math.max(1, Math.floor(memory.length / 3));
  return { wrong, outcomes, residentMiB: { first: mean(memory.slice(0, third)), last: mean(memory.slice(-third)) } };
}

/** Asks again where the server is busy or away, as its clients do. @returns undefined where it refuses for another reason. */
async function calling<T>(server: () => Serving, work: (client: Client) => Promise<T>): Promise<T | undefined> {
  for (let attempt = 0; attempt < 600; attempt++) {
    try {
      return await work(createClient({ url: server().address, maxRetries: 0 }));
    } catch (error) {
      const passes = error instanceof DitrunError && ["ERR_SERVER_BUSY", "ERR_SERVER_UNREACHABLE"].includes(error.code);
      if (!passes) return undefined;
      await sleep(100);
    }
  }
  return undefined;
}

/** Kills one of the server's workers, if any runs now. */
function killRank(mark: string, { pid }: Serving, chance: number): void {
  const workers = processesWith(mark).filter((each) => each !== pid && isWorker(each));
  const victim = workers[Math.floor(chance * workers.length)];
  try {
    if (victim !== undefined) process.kill(victim, "SIGKILL");
  } catch {
    // It has ended by itself meanwhile.
  }
}

function isWorker(pid: number): boolean {
  try {
    return /worker\/main\.js/.test(readFileSync(`/proc/${pid}/cmdline`, "utf8"));
  } catch {
    return false;
  }
}

/** What the journal has of each video against what clients were told. A video is final once, and nothing comes after that. */
function wrongStates(journal: readonly string[], finals: ReadonlyMap<string, string>): string[] {
  const wrong: string[] = [];
  const ended = new Map<string, string>();
  for (const line of journal) {
    const entry = lineSchema.parse(JSON.parse(line));
    if ("gone" in entry) continue;
    const { id, status, error } = entry.put;
    const before = ended.get(id);
    const now = error?.code ?? status;
    // A journal that is written anew tells the same again.
    if (before !== undefined && before !== now) wrong.push(`${id} was ${before}, then ${now}.`);
    if (status === "completed" || status === "failed") ended.set(id, now);
  }
  for (const [id, outcome] of finals) {
    const kept = ended.get(id);
    if (outcome !== "deleted" && kept !== outcome)
      wrong.push(`${id} is ${outcome}, and ${kept ?? "nothing"} in the journal.`);
    if (!["completed", "cancelled", "deleted", "worker_failed"].includes(outcome))
      wrong.push(`${id} has failed: ${outcome}.`);
  }
  return wrong;
}

function residentMiB(pid: number): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kilobytes) / 1024;
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

if (process.argv[1]?.endsWith("soak-serve.ts")) {
  const { values } = parseArgs({ options: { requests: { type: "string" }, seed: { type: "string" } } });
  const { requests = "1000", seed = "1" } = values;
  const kills = Math.ceil(Number(requests) / 50);
  const options = {
    requests: Number(requests),
    seed: Number(seed),
    kills,
    nproc: 2,
    tell: (text: string) => console.log(text),
  };
  const { wrong, outcomes, residentMiB: resident } = await soakServe(options);
  for (const sentence of wrong) console.log(sentence);
  console.log(
    `${requests} requests with the seed ${seed}, ${kills} ranks killed, the server once: ${JSON.stringify(outcomes)}, ${wrong.length} wrong; ` +
      `${resident.first.toFixed(0)} MiB in the first third, ${resident.last.toFixed(0)} MiB in the last.`,
  );
  process.exitCode = wrong.length === 0 ? 0 : 1;
}
