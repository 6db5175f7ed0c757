import { Context, curveKeyPair, Router } from "zeromq";
import { DitrunError, messageOf } from "../../failure.js";
import { AwakeClock } from "../../protocol/awake-clock.js";
import { joinPieces, MOST_FRAME_BYTES, messagesOf } from "../../protocol/frames.js";
import type { Job } from "../../protocol/job.js";
import {
  type LauncherMessage,
  parseMessage,
  type WorkerMessage,
  workerMessageSchema,
} from "../../protocol/messages.js";
import { SignsOfLife } from "../signs-of-life.js";
import { missingFrom, rankList, Whereabouts } from "../whereabouts.js";
import type { Answers, Question } from "./answers.js";
import { Barriers } from "./barriers.js";
import { Complaints } from "./complaints.js";
import { KeyValues } from "./key-values.js";
import { admitOnly } from "./zap.js";

/** What the rendezvous tells the agent. */
export interface RendezvousEvents {
  result(rank: number, value: unknown): void;
  /** A rank handed something over, which it waits to be dealt with. */
  emitted(rank: number, name: string, value: Uint8Array): Promise<void>;
  /** A rank cannot go on: for a reason of its own, or since it has lost its peers. */
  failed(rank: number, message: string, exitCode: number, cause: "own" | "peer"): void;
  /** Some ranks did not join or come to a barrier in time, or have fallen silent; the message names them. */
  overdue(message: string): void;
  /** Something odd that does not end the job. */
  warning(message: string): void;
}

const LOOPBACK = "127.0.0.1";
/** Messages of one peer that may wait to be read; then its connection waits. */
const MOST_WAITING_MESSAGES = 4096;
/** What CURVE adds to a frame, and more. */
const FRAME_OVERHEAD = 1024;
/** How long a connection may take to show a key, on a machine with far too much to do. */
const HANDSHAKE_MILLISECONDS = 15_000;
/** Bytes that ranks have handed over and that have not been dealt with yet; each rank keeps to less. */
const MOST_HANDED_OVER = 2 * 2 ** 30;

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
  readonly #clock = new AwakeClock();
  readonly #whereabouts = new Whereabouts();
  readonly #values: KeyValues;
  readonly #barriers: Barriers;
  readonly #invalid: Complaints;
  readonly #closers: (() => void)[] = [];
  readonly #life: SignsOfLife;
  readonly #answers: Answers;
  #handedOver = 0;
  #sending: Promise<void> = Promise.resolve();
  #closed = false;
  #lastLook = performance.now();

  private constructor(
    readonly job: Job,
    readonly size: number,
    private readonly events: RendezvousEvents,
  ) {
    const { timeoutSeconds } = job;
    const answers: Answers = {
      done: ({ rank, id }) => this.#send(rank, { type: "done", id }),
      value: ({ rank, id }, value) => this.#send(rank, { type: "value", id }, value),
      refuse: ({ rank, id }, message, cause) => this.#send(rank, { type: "refused", id, message, cause }),
    };
    this.#answers = answers;
    this.#values = new KeyValues(size, timeoutSeconds, this.#clock, this.#whereabouts, answers);
    this.#barriers = new Barriers(size, timeoutSeconds, this.#clock, this.#whereabouts, answers, (message) =>
      events.overdue(message),
    );
    this.#invalid = new Complaints("messages were not valid", (message) => events.warning(message));
    this.#closers.push(() => this.#invalid.close());
    this.#closers.push(() => this.#clock.close());
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
      receiveHighWaterMark: MOST_WAITING_MESSAGES,
      maxMessageSize: MOST_FRAME_BYTES + FRAME_OVERHEAD,
      handshakeInterval: HANDSHAKE_MILLISECONDS,
    });
  }

  /**
   * Opens the rendezvous and starts the clock for joining.
   * @param port 0 for any free one.
   * @throws DitrunError when the port cannot be had.
   */
  static async open(job: Job, size: number, port: number, events: RendezvousEvents): Promise<Rendezvous> {
    const rendezvous = new Rendezvous(job, size, events);
    const zap = await admitOnly(rendezvous.#context, [rendezvous.#clientKeys.publicKey], events.warning);
    rendezvous.#closers.push(() => zap.close());
    rendezvous.#closers.push(() => rendezvous.#socket.close());
    try {
      await rendezvous.#socket.bind(`tcp://${LOOPBACK}:${port}`);
    } catch (error) {
      rendezvous.close();
      throw new DitrunError(
        "ERR_PORT_TAKEN",
        `The rendezvous cannot listen on ${LOOPBACK}:${port} (${messageOf(error)}): give another --master-port, or 0 for any free one.`,
        { cause: error },
      );
    }
    rendezvous.#clock.after(job.timeoutSeconds * 1000, () => {
      const missing = missingFrom(size, rendezvous.#routes.keys());
      if (missing.length > 0) events.overdue(`${rankList(missing)} did not join within ${job.timeoutSeconds} s.`);
    });
    rendezvous.#receive().catch((error: unknown) => {
      events.overdue(`The rendezvous cannot receive any more: ${messageOf(error)}.`);
    });
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
    for (const close of this.#closers) close();
  }

  async #receive(): Promise<void> {
    for await (const [route, header, ...pieces] of messagesOf(this.#socket)) {
      if (this.#closed) return;
      if (route === undefined || header === undefined) continue;
      try {
        this.#handle(route, parseMessage(workerMessageSchema, header), pieces);
      } catch (error) {
        const rank = this.#peers.get(route.toString("hex"));
        this.#invalid.add(
          `A message of ${rank === undefined ? "a peer" : `rank ${rank}`} is not valid: ${messageOf(error)}.`,
        );
      }
    }
  }

  #handle(route: Buffer, message: WorkerMessage, pieces: readonly Buffer[]): void {
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
        this.#values.put(question, message.key, joinPieces(pieces));
        break;
      case "get":
        this.#values.get(question, message.key);
        break;
      case "barrier":
        this.#barriers.arrive(question, message.name);
        break;
      case "emit":
        this.#emit(question, message.name, joinPieces(pieces));
        break;
      case "alive":
        break;
      case "fail":
        this.#answers.done(question);
        this.events.failed(rank, message.message, message.exitCode, message.cause);
        break;
      case "result": {
        const value: unknown = JSON.parse(new TextDecoder().decode(joinPieces(pieces)));
        this.#life.forget(rank);
        this.#whereabouts.saw(rank, "reported its result");
        this.#answers.done(question);
        this.events.result(rank, value);
        break;
      }
    }
  }

  #emit(question: Question, name: string, value: Uint8Array): void {
    const { rank } = question;
    this.#whereabouts.saw(rank, `handed over its ${name}`);
    if (this.#handedOver + value.length > MOST_HANDED_OVER) {
      const message = `The launcher holds ${this.#handedOver} bytes that are still to be dealt with, and takes no more.`;
      this.#answers.refuse(question, message, "own");
      return;
    }
    this.#handedOver += value.length;
    // Where this fails the job ends, and with it the wait for an answer.
    void this.events.emitted(rank, name, value).then(() => {
      this.#handedOver -= value.length;
      this.#answers.done(question);
    });
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
    const waiting = this.#values.awaited || this.#barriers.awaited;
    if (late || waiting || this.#routes.size < this.size || this.#whereabouts.quiet < timeoutSeconds * 1000) return;
    const seen = this.#whereabouts.of(missingFrom(this.size, []));
    this.events.warning(`For more than ${timeoutSeconds} s no rank has asked for or handed over anything${seen}.`);
  }

  #refuse(route: Buffer, id: number, message: string): void {
    this.#sendTo(route, { type: "refused", id, message, cause: "own" });
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
      .catch((error: unknown) => {
        if (!this.#closed) this.events.warning(`A ${message.type} message was not sent: ${messageOf(error)}`);
      });
  }
}
