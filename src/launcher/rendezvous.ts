import { Context, curveKeyPair, Router } from "zeromq";
import { DitrunError, exitCodes, messageOf } from "../protocol/failure.js";
import type { Job } from "../protocol/job.js";
import { type LauncherMessage, parseMessage, type WorkerMessage, workerMessageSchema } from "../protocol/messages.js";
import { SignsOfLife } from "./signs-of-life.js";
import { rankList, Whereabouts } from "./whereabouts.js";
import { admitOnly } from "./zap.js";

/** What the rendezvous tells the agent. */
export interface RendezvousEvents {
  result(rank: number, value: unknown): void;
  /** A rank handed something over, which it waits to be dealt with. */
  emitted(rank: number, name: string, value: Uint8Array): Promise<void>;
  failed(rank: number, message: string, exitCode: number): void;
  /** Some ranks did not join in time, or have fallen silent; the message names them. */
  overdue(message: string): void;
  /** Something odd that does not end the job. */
  warning(message: string): void;
}

interface Question {
  rank: number;
  id: number;
}

const LOOPBACK = "127.0.0.1";

/**
 * Where a job's workers meet: a ZeroMQ ROUTER on loopback that hands out the job, keeps a key-value store, counts
 * barriers and collects results. CURVE encrypts it; its keys are made for this job and no other key is admitted.
 */
export class Rendezvous {
  readonly address = LOOPBACK;
  readonly serverKey: string;
  readonly #clientKeys = curveKeyPair();
  readonly #context = new Context({ blocky: false });
  readonly #socket: Router;
  readonly #peers = new Map<string, number>();
  readonly #routes = new Map<number, Buffer>();
  readonly #values = new Map<string, Uint8Array>();
  readonly #readers = new Map<string, Set<Question>>();
  readonly #barriers = new Map<string, { arrived: Map<number, Question>; deadline: NodeJS.Timeout }>();
  readonly #deadlines = new Set<NodeJS.Timeout>();
  readonly #closers: (() => void)[] = [];
  readonly #life: SignsOfLife;
  readonly #whereabouts = new Whereabouts();
  #sending: Promise<void> = Promise.resolve();
  #closed = false;
  #lastLook = performance.now();

  private constructor(
    readonly job: Job,
    readonly size: number,
    private readonly events: RendezvousEvents,
  ) {
    this.#life = new SignsOfLife(job.timeoutSeconds, (ranks) => this.#silent(ranks));
    this.#closers.push(() => this.#life.close());
    const looking = setInterval(() => this.#tellOfQuiet(), job.timeoutSeconds * 1000).unref();
    this.#closers.push(() => clearInterval(looking));
    const keys = curveKeyPair();
    this.serverKey = keys.publicKey;
    this.#socket = new Router({
      context: this.#context,
      curveServer: true,
      curveSecretKey: keys.secretKey,
      linger: 0,
      sendHighWaterMark: 0,
      receiveHighWaterMark: 0,
    });
  }

  /**
   * Opens the rendezvous and starts the clock for joining.
   * @param port 0 for any free one.
   * @throws DitrunError when the port cannot be had.
   */
  static async open(job: Job, size: number, port: number, events: RendezvousEvents): Promise<Rendezvous> {
    const rendezvous = new Rendezvous(job, size, events);
    const zap = await admitOnly(rendezvous.#context, [rendezvous.#clientKeys.publicKey]);
    rendezvous.#closers.push(() => zap.close());
    rendezvous.#closers.push(() => rendezvous.#socket.close());
    try {
      await rendezvous.#socket.bind(`tcp://${LOOPBACK}:${port}`);
    } catch (error) {
      rendezvous.close();
      throw new DitrunError(
        `The rendezvous cannot listen on ${LOOPBACK}:${port} (${messageOf(error)}): give another --master-port, or 0 for any free one.`,
        exitCodes.rendezvous,
        { cause: error },
      );
    }
    rendezvous.#after(() => {
      const missing = rendezvous.#missing(rendezvous.#routes.keys());
      if (missing.length > 0) events.overdue(`${rankList(missing)} did not join within ${job.timeoutSeconds} s.`);
    });
    void rendezvous.#receive();
    return rendezvous;
  }

  get port(): number {
    return Number(this.#socket.lastEndpoint?.split(":").at(-1));
  }

  /** The key pair (Z85) that this job's workers show. */
  get clientKeys(): { publicKey: string; secretKey: string } {
    return this.#clientKeys;
  }

  /** Tells every rank that has joined that the job is over, and why. */
  async abort(message: string): Promise<void> {
    for (const rank of this.#routes.keys()) this.#send(rank, { type: "abort", message });
    await this.#sending;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const deadline of this.#deadlines) clearTimeout(deadline);
    for (const close of this.#closers) close();
  }

  async #receive(): Promise<void> {
    for await (const [route, header, value] of this.#socket) {
      if (route === undefined || header === undefined) continue;
      try {
        this.#handle(route, parseMessage(workerMessageSchema, header), value);
      } catch (error) {
        const rank = this.#peers.get(route.toString("hex"));
        this.events.warning(
          `A message of ${rank === undefined ? "a peer" : `rank ${rank}`} is not valid: ${messageOf(error)}.`,
        );
      }
    }
  }

  #handle(route: Buffer, message: WorkerMessage, value: Uint8Array | undefined): void {
    if (message.type === "join") {
      this.#join(route, message);
      return;
    }
    const rank = this.#peers.get(route.toString("hex"));
    if (rank === undefined) {
      this.#refuse(route, message.id, `A ${message.type} message came before a join.`);
      return;
    }
    this.#life.heard(rank);
    const question: Question = { rank, id: message.id };
    switch (message.type) {
      case "put":
        this.#values.set(message.key, value ?? new Uint8Array());
        this.#whereabouts.saw(rank, `put "${message.key}"`);
        this.#done(question);
        for (const reader of this.#readers.get(message.key) ?? []) this.#answer(reader, message.key);
        this.#readers.delete(message.key);
        break;
      case "get":
        this.#get(question, message.key);
        break;
      case "barrier":
        this.#barrier(question, message.name);
        break;
      case "emit":
        this.#whereabouts.saw(rank, `handed over its ${message.name}`);
        // Where this fails the job ends, and with it the wait for an answer.
        void this.events.emitted(rank, message.name, value ?? new Uint8Array()).then(() => this.#done(question));
        break;
      case "alive":
        break;
      case "fail":
        this.#done(question);
        this.events.failed(rank, message.message, message.exitCode);
        break;
      case "result":
        this.#life.forget(rank);
        this.#whereabouts.saw(rank, "reported its result");
        this.#done(question);
        this.events.result(rank, message.value);
        break;
    }
  }

  #join(route: Buffer, { id, rank, host, pid }: WorkerMessage & { type: "join" }): void {
    if (rank >= this.size) {
      this.#refuse(route, id, `Rank ${rank} does not exist in a job of ${this.size} workers.`);
    } else if (this.#routes.has(rank)) {
      const message = `Rank ${rank} has joined already; process ${pid} on ${host} must be given a rank of its own.`;
      this.#refuse(route, id, message);
    } else {
      this.#routes.set(rank, route);
      this.#peers.set(route.toString("hex"), rank);
      this.#life.expect(rank);
      this.#whereabouts.saw(rank, "joined");
      this.#sendTo(route, { type: "job", id, job: this.job });
    }
  }

  #get(question: Question, key: string): void {
    if (this.#values.has(key)) {
      this.#answer(question, key);
      return;
    }
    const readers = this.#readers.get(key) ?? new Set();
    this.#readers.set(key, readers.add(question));
    this.#whereabouts.saw(question.rank, `asked for "${key}"`);
    this.#after(() => {
      if (!readers.has(question)) return;
      const others = this.#missing([...readers].map(({ rank }) => rank));
      const seen = others.length === 0 ? "; all ranks ask for it" : this.#whereabouts.of(others);
      readers.delete(question);
      this.#deny(question, `No rank has put "${key}" within ${this.job.timeoutSeconds} s${seen}.`);
    });
  }

  #answer({ rank, id }: Question, key: string): void {
    this.#whereabouts.saw(rank, `was given "${key}"`);
    this.#send(rank, { type: "value", id }, this.#values.get(key));
  }

  #barrier(question: Question, name: string): void {
    const barrier = this.#barriers.get(name) ?? {
      arrived: new Map(),
      deadline: this.#after(() => this.#breakBarrier(name)),
    };
    this.#barriers.set(name, barrier);
    if (barrier.arrived.has(question.rank)) {
      this.#deny(question, `Rank ${question.rank} waits at barrier "${name}" already.`);
      return;
    }
    barrier.arrived.set(question.rank, question);
    this.#whereabouts.saw(question.rank, `came to barrier "${name}"`);
    if (barrier.arrived.size < this.size) return;
    clearTimeout(barrier.deadline);
    this.#barriers.delete(name);
    for (const waiting of barrier.arrived.values()) {
      this.#whereabouts.saw(waiting.rank, `passed barrier "${name}"`);
      this.#done(waiting);
    }
  }

  #breakBarrier(name: string): void {
    const arrived = this.#barriers.get(name)?.arrived ?? new Map<number, Question>();
    this.#barriers.delete(name);
    const missing = this.#missing(arrived.keys());
    const seen = this.#whereabouts.of(missing);
    const message = `${rankList(missing)} did not come to barrier "${name}" within ${this.job.timeoutSeconds} s${seen}.`;
    for (const question of arrived.values()) this.#deny(question, message);
  }

  #silent(ranks: readonly number[]): void {
    const { timeoutSeconds } = this.job;
    const have = ranks.length === 1 ? "has" : "have";
    this.events.overdue(
      `${rankList(ranks)} ${have} given no sign of life for more than ${timeoutSeconds} s: stopped, or stuck in a driver${this.#whereabouts.of(ranks)}.`,
    );
  }

  /** A deadlock on a device looks like this, and so does long work: it is told of, and left to the user. */
  #tellOfQuiet(): void {
    const { timeoutSeconds } = this.job;
    const now = performance.now();
    // The launcher itself was stopped for a while: what was said meanwhile is still to be read.
    const late = now - this.#lastLook > 1500 * timeoutSeconds;
    this.#lastLook = now;
    const waiting = this.#readers.size > 0 || this.#barriers.size > 0;
    if (late || waiting || this.#routes.size < this.size || this.#whereabouts.quiet < timeoutSeconds * 1000) return;
    const seen = this.#whereabouts.of(this.#missing([]));
    this.events.warning(`For more than ${timeoutSeconds} s no rank has asked for or handed over anything${seen}.`);
  }

  #missing(present: Iterable<number>): number[] {
    const there = new Set(present);
    return Array.from({ length: this.size }, (_, rank) => rank).filter((rank) => !there.has(rank));
  }

  #after(act: () => void): NodeJS.Timeout {
    const deadline = setTimeout(() => {
      this.#deadlines.delete(deadline);
      act();
    }, this.job.timeoutSeconds * 1000);
    this.#deadlines.add(deadline);
    return deadline;
  }

  #done({ rank, id }: Question): void {
    this.#send(rank, { type: "done", id });
  }

  #deny({ rank, id }: Question, message: string): void {
    this.#send(rank, { type: "refused", id, message });
  }

  #refuse(route: Buffer, id: number, message: string): void {
    this.#sendTo(route, { type: "refused", id, message });
  }

  #send(rank: number, message: LauncherMessage, value?: Uint8Array): void {
    const route = this.#routes.get(rank);
    if (route) this.#sendTo(route, message, value);
  }

  /** A ROUTER takes one message at a time and drops what is for a peer that has gone; the agent sees such a peer exit. */
  #sendTo(route: Buffer, message: LauncherMessage, value?: Uint8Array): void {
    const frames = [route, JSON.stringify(message), ...(value === undefined ? [] : [value])];
    this.#sending = this.#sending
      .then(async () => {
        if (!this.#closed) await this.#socket.send(frames);
      })
      .catch((error: unknown) => this.events.warning(`A ${message.type} message was not sent: ${messageOf(error)}`));
  }
}
