import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { Context, Router } from "zeromq";
import { Hosts, type Offer } from "../src/engine/hosts.js";
import { followingWorker } from "../src/engine/worker-program.js";
import { Workers } from "../src/engine/workers.js";
import { messageOf } from "../src/failure.js";
import type { LocalRank, RanksHere } from "../src/launcher/local-ranks.js";
import { openOwnLog } from "../src/launcher/logs.js";
import { follow } from "../src/launcher/nodes/follower.js";
import { curvePairs } from "../src/launcher/nodes/job-key.js";
import { Leader } from "../src/launcher/nodes/leader.js";
import type { Program, WorkerExit } from "../src/launcher/worker-process.js";
import { planSchema } from "../src/plan/schema.js";
import { AwakeClock } from "../src/protocol/awake-clock.js";
import type { Task } from "../src/protocol/job.js";
import { readEnvironment } from "../src/worker/environment.js";
import { type SharedParts, WorkerStore } from "../src/worker/store.js";

// Hosts and workers that are no machines and no processes, but speak the launcher's protocol over its own sockets: its leader, its
// followers and its workers' stores. Only what a worker computes is left out.

const common = { version: "simulated", job: "simulated", command: "simulated" };
const offer: Offer = { device: "cpu", kernels: "none", count: 1 };
const timeoutSeconds = 120;

export interface Meeting {
  readonly port: number;
  readonly key: string;
  /** Hosts with workers; node 0 leads and has none. */
  readonly hosts: number;
  readonly perHost: number;
}

let turn: Promise<void> = Promise.resolve();

/** A worker's part of a rendezvous: it joins, takes a request, agrees on a number with all, meets them at a barrier and reports. */
async function work(program: Program, shared: SharedParts): Promise<void> {
  // One after the other, with room between them: hosts that share this thread must not seem lost meanwhile.
  turn = turn.then(() => nextTurn());
  await turn;
  const worker = await WorkerStore.join(readEnvironment(program.environment), shared);
  try {
    for (let request = await worker.next(); request; request = await worker.next()) {
      const store = worker.storeOf(request.number);
      if ((await store.largest("rank", worker.rank)) !== worker.size - 1) throw new Error("The largest is another.");
      await store.barrier("all");
      await worker.result(request.number, { rank: worker.rank });
    }
  } finally {
    worker.close();
  }
}

class SimulatedRank implements LocalRank {
  readonly host = "simulated";
  readonly pid = process.pid;
  readonly stderrTail: string[] = [];
  readonly exited: Promise<WorkerExit>;
  readonly died: Promise<void>;
  endedAt: number | undefined;
  #kill: (exit: WorkerExit) => void = () => undefined;

  constructor(
    readonly rank: number,
    program: Program,
    shared: SharedParts,
  ) {
    const killed = new Promise<WorkerExit>((resolve) => {
      this.#kill = resolve;
    });
    const worked = work(program, shared).then(
      (): WorkerExit => ({ kind: "code", code: 0 }),
      (error: unknown): WorkerExit => {
        this.stderrTail.push(messageOf(error));
        return { kind: "code", code: 5 };
      },
    );
    this.exited = Promise.race([worked, killed]).then((exit) => {
      this.endedAt ??= performance.now();
      return exit;
    });
    this.died = this.exited.then(() => undefined);
  }

  get running(): boolean {
    return this.endedAt === undefined;
  }

  signal(signal: NodeJS.Signals): void {
    this.#kill({ kind: "signal", signal });
  }
}

class SimulatedRanks implements RanksHere {
  readonly all: SimulatedRank[] = [];

  constructor(private readonly shared: SharedParts) {}

  start(rank: number, program: Program): LocalRank {
    const started = new SimulatedRank(rank, program, this.shared);
    this.all.push(started);
    return started;
  }

  kill(): void {
    for (const rank of this.all) rank.signal("SIGKILL");
  }

  async killStrays(): Promise<number> {
    return 0;
  }
}

/** The launchers of nodes `first` to `last`, and their workers. @returns their exit codes. */
export async function followAll(
  { port, key, hosts, perHost }: Meeting,
  first: number,
  last: number,
): Promise<number[]> {
  const keys = curvePairs(key, "the simulation");
  const shared = { context: new Context({ blocky: false, maxSockets: 65_535 }), clock: new AwakeClock() };
  const one = (node: number) =>
    follow({
      ...{ ...common, nodes: hosts + 1, node, workers: perHost, offer: JSON.stringify(offer), timeoutSeconds },
      locate: async () => ({ host: "127.0.0.1", port, keys, mayChange: false }),
      ...{ localAddress: undefined, log: openOwnLog() },
      program: (rank, start) => followingWorker(rank, start),
      ranks: () => new SimulatedRanks(shared),
    });
  return Promise.all(Array.from({ length: last - first + 1 }, (_, index) => one(first + index)));
}

export interface Traffic {
  readonly messages: number;
  readonly bytes: number;
}

/** Counts what goes through this process's servers, in both directions, but for signs of life. */
class Counter {
  #messages = 0;
  #bytes = 0;

  constructor() {
    const count = (frames: readonly (Buffer | string)[]) => this.#count(frames);
    const { send, receive } = Router.prototype;
    // Their prototype's own are native, and may not be assigned to.
    Object.defineProperty(Router.prototype, "send", {
      configurable: true,
      value(this: Router, frames: (Buffer | string)[]) {
        count(frames);
        return send.call(this, frames);
      },
    });
    Object.defineProperty(Router.prototype, "receive", {
      configurable: true,
      async value(this: Router) {
        const frames = await receive.call(this);
        count(frames);
        return frames;
      },
    });
  }

  get traffic(): Traffic {
    return { messages: this.#messages, bytes: this.#bytes };
  }

  end(): void {
    for (const name of ["send", "receive"]) Reflect.deleteProperty(Router.prototype, name);
  }

  #count([, header, ...values]: readonly (Buffer | string)[]): void {
    if (header === undefined || String(header).startsWith('{"type":"alive"')) return;
    this.#messages++;
    for (const frame of [header, ...values]) this.#bytes += frame.length;
  }
}

export interface Measured {
  /** Until all launchers were there, from the call to `onListening`. */
  readonly hostsSeconds: number;
  /** Until all workers had joined, agreed, met at a barrier and reported. */
  readonly workersSeconds: number;
  /** Until all had ended and every launcher had heard of it. */
  readonly endSeconds: number;
  readonly traffic: Traffic;
  /** MiB of this process. */
  readonly memory: number;
}

/** Leads simulated hosts through one job. @param onListening has the others come. */
export async function leadAll(
  { key, hosts, perHost }: Omit<Meeting, "port">,
  onListening: (port: number) => Promise<unknown>,
): Promise<Measured> {
  const counter = new Counter();
  const warnings: string[] = [];
  const leader = await Leader.open({
    ...{ ...common, nodes: hosts + 1, host: "node0", address: "127.0.0.1", port: 0, timeoutSeconds },
    ...{ keys: curvePairs(key, "the simulation"), warn: (sentence: string) => warnings.push(sentence) },
  });
  try {
    const began = performance.now();
    const seconds = () => (performance.now() - began) / 1000;
    const followed = onListening(leader.port);
    await Promise.race([leader.gather(), followed.then(() => sleep(1000))]);
    const hostsSeconds = seconds();
    const workers = await Workers.start({
      settings: { id: "simulated", device: "cpu", kernels: "none", timeoutSeconds },
      ...{ nproc: hosts * perHost, hosts: Hosts.of(leader, offer, 0), log: openOwnLog(), port: 0 },
    });
    const task: Task = { kind: "links", plan: planSchema.parse({}), sizes: [64], repetitions: 1 };
    const results = await workers.run(task);
    const workersSeconds = seconds();
    if (results.length !== hosts * perHost) throw new Error(`${results.length} workers have reported.`);
    const memory = process.memoryUsage().rss / 2 ** 20;
    await workers.close();
    await leader.over({ exitCode: 0 });
    await followed;
    if (warnings.length > 0) throw new Error(warnings.join(" "));
    return { hostsSeconds, workersSeconds, endSeconds: seconds(), traffic: counter.traffic, memory };
  } finally {
    leader.close();
    counter.end();
  }
}
