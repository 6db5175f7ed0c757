import { setTimeout as sleep } from "node:timers/promises";
import { type Context, curveKeyPair, type Router } from "zeromq";
import { DitrunError, messageOf } from "../../failure.js";
import { AwakeClock } from "../../protocol/awake-clock.js";
import { joinPieces, messagesOf } from "../../protocol/frames.js";
import {
  type LauncherMessage,
  MOST_HEADER_BYTES,
  parseMessage,
  type ToldFailure,
  type WorkerMessage,
  workerMessageSchema,
} from "../../protocol/messages.js";
import { shownEndpoint, tcpOf } from "../cluster/endpoint.js";
import { SignsOfLife } from "../signs-of-life.js";
import { harmless } from "../terminal-text.js";
import { missingFrom, rankList, Whereabouts } from "../whereabouts.js";
import type { Answers, Question } from "./answers.js";
import { Barriers } from "./barriers.js";
import { Complaints } from "./complaints.js";
import { giveBackContext, takeContext } from "./contexts.js";
import { Door } from "./door.js";
import { KeyValues } from "./key-values.js";
import { type Outcome, Requests, type Stop } from "./requests.js";
import { serverSocket } from "./server-socket.js";
import { admitOnly } from "./zap.js";

/** What the rendezvous tells whoever opened it. */
export interface RendezvousEvents {
  /** A rank handed something over, which it waits to be dealt with. */
  emitted(rank: number, name: string, value: Uint8Array): Promise<void>;
  /** A rank cannot go on: for a reason of its own, or since it has lost its peers. */
  failed(rank: number, failure: ToldFailure, cause: "own" | "peer"): void;
  /** The sentence about a rank that says why it must stop a request. */
  fault(rank: number, message: string): string;
  /** Some ranks did not join or come to a barrier in time, or have fallen silent; the message names them. */
  overdue(message: string): void;
  /** Something odd that does not end the job. */
  warning(message: string): void;
}

const LOOPBACK = "127.0.0.1";
/** More ranks than these come in by several threads: each handshake takes a millisecond of one. */
const RANKS_PER_THREAD = 64;
const MOST_THREADS = 4;
/** How much longer than any rank may take a request to be stopped by all. */
const STOP_MARGIN_MILLISECONDS = 5000;
/** How often it is looked whether all ranks have answered. */
const PING_LOOK_MILLISECONDS = 10;
/** Bytes that ranks have handed over and that have not been dealt with yet; each rank keeps to less. */
const MOST_HANDED_OVER = 2 * 2 ** 30;

export interface RendezvousOptions {
  /** Number of ranks. */
  readonly size: number;
  /** Where to listen: loopback by default, since nobody else has ranks. */
  readonly address?: string | undefined;
  /** 0 for any free one. */
  readonly port: number;
  /** Seconds that a rank may take to join, to come to a barrier, to put a key, or to give a sign of life. */
  readonly timeoutSeconds: number;
  /** What a rank is told when it has joined. */
  readonly welcome: (rank: number) => Uint8Array;
}

/**
 * Where ranks meet: a ZeroMQ ROUTER that keeps a key-value store, counts barriers, hands out requests and collects
 * their results. CURVE encrypts it; its keys are made for this launch and no other key is admitted.
 */
export class Rendezvous {
  readonly address: string;
  readonly serverKey: string;
  readonly #clientKeys = curveKeyPair();
  readonly #context: Context;
  readonly #socket: Router;
  readonly #peers = new Map<string, number>();
  readonly #routes = new Map<number, Buffer>();
  readonly #clock = new AwakeClock();
  readonly #whereabouts = new Whereabouts();
  readonly #values: KeyValues;
  readonly #barriers: Barriers;
  readonly #requests: Requests;
  readonly #invalid: Complaints;
  readonly #closers: (() => void)[] = [];
  readonly #life: SignsOfLife;
  readonly #answers: Answers;
  #handedOver = 0;
  #sending: Promise<void> = Promise.resolve();
  #closed = false;
  #lastLook = performance.now();

  private constructor(
    private readonly options: RendezvousOptions,
    private readonly events: RendezvousEvents,
  ) {
    const { size, timeoutSeconds, address = LOOPBACK } = options;
    this.#context = takeContext(size > RANKS_PER_THREAD ? MOST_THREADS : 1);
    this.address = address;
    const answers: Answers = {
      request: ({ rank, id }, request, task) => this.#send(rank, { type: "request", id, request }, task),
      end: ({ rank, id }) => {
        // It has nothing more to say.
        this.#life.forget(rank);
        this.#send(rank, { type: "end", id });
      },
      go: ({ rank, id }, preview) => this.#send(rank, { type: "go", id, preview }),
      stop: ({ rank, id }, message) => this.#send(rank, { type: "stop", id, message }),
      done: ({ rank, id }) => this.#send(rank, { type: "done", id }),
      largest: ({ rank, id }, value) => this.#send(rank, { type: "largest", id, value }),
      value: ({ rank, id }, value) => this.#send(rank, { type: "value", id }, value),
      refuse: ({ rank, id }, message, cause) => this.#send(rank, { type: "refused", id, message, cause }),
    };
    this.#answers = answers;
    this.#values = new KeyValues(size, timeoutSeconds, this.#clock, this.#whereabouts, answers, () => {
      const { quiet } = this.#life;
      if (quiet.length > 0) this.#silent(quiet, timeoutSeconds / 2);
      return quiet.length > 0;
    });
    this.#requests = new Requests(size, this.#whereabouts, answers, (request) => this.#expectAllToStop(request));
    this.#barriers = new Barriers(size, timeoutSeconds, this.#clock, this.#whereabouts, answers, (message) =>
      events.overdue(message),
    );
    this.#invalid = new Complaints("messages were not valid", (message) => events.warning(harmless(message)));
    this.#closers.push(() => this.#invalid.close());
    this.#closers.push(() => this.#clock.close());
    this.#life = new SignsOfLife(timeoutSeconds, (ranks) => this.#silent(ranks));
    this.#closers.push(() => this.#life.close());
    const looking = setInterval(() => this.#tellOfQuiet(), timeoutSeconds * 1000).unref();
    this.#closers.push(() => clearInterval(looking));
    const keys = curveKeyPair();
    this.serverKey = keys.publicKey;
    this.#socket = serverSocket(this.#context, keys.secretKey, address, 0);
    const door = new Door(this.#socket, size, () => this.port, events.warning);
    this.#closers.push(() => door.close());
  }

  /** Opens the rendezvous and starts the clock for joining. @throws DitrunError when the port cannot be had. */
  static async open(options: RendezvousOptions, events: RendezvousEvents): Promise<Rendezvous> {
    const { size, port, timeoutSeconds } = options;
    const rendezvous = new Rendezvous(options, events);
    const { address } = rendezvous;
    const zap = await admitOnly(rendezvous.#context, [rendezvous.#clientKeys.publicKey], events.warning);
    rendezvous.#closers.push(() => zap.close());
    rendezvous.#closers.push(() => rendezvous.#socket.close());
    try {
      await rendezvous.#socket.bind(tcpOf({ host: address, port }).replace(/:0$/, ":*"));
    } catch (error) {
      rendezvous.close();
      throw new DitrunError(
        "ERR_PORT_TAKEN",
        `The rendezvous cannot listen on ${shownEndpoint({ host: address, port })} (${messageOf(error)}): give another --master-port, or 0 for any free one.`,
        { cause: error },
      );
    }
    rendezvous.#clock.after(timeoutSeconds * 1000, () => {
      const missing = missingFrom(size, rendezvous.#routes.keys());
      if (missing.length > 0) events.overdue(`${rankList(missing)} did not join within ${timeoutSeconds} s.`);
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

  /** Ranks that have joined. */
  get joined(): number {
    return this.#routes.size;
  }

  /** Whether the rank still owes its part of the request at hand. */
  owes(rank: number): boolean {
    return this.#requests.owes(rank);
  }

  /** Hands a request to every rank; there is none at hand. Its bytes are JSON. @param wantsPreview asked once for each step. @returns how it ended. */
  async hand(task: Uint8Array, wantsPreview?: () => boolean): Promise<Outcome> {
    const handed = this.#requests.hand(task, wantsPreview);
    const { number = 0 } = this.#requests;
    const outcome = await handed;
    this.#values.forget(number);
    return outcome;
  }

  /** Stops the request at hand before the next step that no rank has been told of. */
  stop(stop: Stop): void {
    this.#requests.stop(stop);
  }

  /** There will be no more requests: ranks end. */
  end(): void {
    this.#requests.end();
  }

  /** Asks every rank that has joined for a sign of life. @returns those that have given none in time. */
  async silentRanks(milliseconds: number): Promise<readonly number[]> {
    const asked = performance.now();
    for (const rank of this.#routes.keys()) this.#send(rank, { type: "ping" });
    for (;;) {
      const silent = this.#closed ? [] : this.#life.silentSince(asked);
      if (silent.length === 0 || performance.now() - asked >= milliseconds) return silent.toSorted((a, b) => a - b);
      await sleep(PING_LOOK_MILLISECONDS);
    }
  }

  /** Tells every rank that has joined that all is over, and why. */
  async abort(message: string): Promise<void> {
    for (const rank of this.#routes.keys()) this.#send(rank, { type: "abort", message });
    await this.#sending;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const close of this.#closers) close();
    giveBackContext(this.#context);
  }

  async #receive(): Promise<void> {
    for await (const [route, header, ...pieces] of messagesOf(this.#socket)) {
      if (this.#closed) return;
      if (route === undefined || header === undefined) continue;
      try {
        if (header.length > MOST_HEADER_BYTES) throw new Error(`it has ${header.length} bytes`);
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
        this.#values.put(question, message.key, joinPieces(pieces), message.request);
        break;
      case "get":
        this.#values.get(question, message.key);
        break;
      case "barrier":
        this.#barriers.arrive(question, message.name);
        break;
      case "largest":
        this.#barriers.arrive(question, message.name, message.value);
        break;
      case "time":
        this.#send(rank, { type: "time", id: message.id, microseconds: Number(process.hrtime.bigint()) / 1e3 });
        break;
      case "emit":
        this.#emit(question, message.name, joinPieces(pieces));
        break;
      case "alive":
        break;
      case "fail":
        this.#answers.done(question);
        this.events.failed(rank, message, message.cause);
        break;
      case "next":
        this.#requests.next(question);
        break;
      case "step":
        this.#requests.step(question, message.request, message.step);
        break;
      case "fault": {
        const { code, exitCode } = message;
        this.#requests.stop(
          { code, message: this.events.fault(rank, message.message), exitCode, rank },
          message.request,
        );
        this.#answers.done(question);
        break;
      }
      case "stopped":
        this.#requests.stopped(question, message.request);
        break;
      case "result":
        this.#requests.result(question, message.request, joinPieces(pieces));
        break;
    }
  }

  /** Ranks that end a request for the same reason do so at nearly the same time; one that does not is stuck. */
  #expectAllToStop(request: number): void {
    const { size, timeoutSeconds } = this.options;
    this.#clock.after(timeoutSeconds * 1000 + STOP_MARGIN_MILLISECONDS, () => {
      const late = missingFrom(size, []).filter(
        (rank) => this.#requests.number === request && this.#requests.owes(rank),
      );
      if (late.length === 0) return;
      const seen = this.#whereabouts.of(late);
      this.events.overdue(`${rankList(late)} did not stop within ${timeoutSeconds} s of the others${seen}.`);
    });
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
    const { size, welcome } = this.options;
    if (rank >= size) {
      this.#refuse(route, id, `Rank ${rank} does not exist in a job of ${size} workers.`);
    } else if (this.#routes.has(rank)) {
      const message = `Rank ${rank} has joined already; process ${pid} on ${host} must be given a rank of its own.`;
      this.#refuse(route, id, message);
    } else {
      this.#routes.set(rank, route);
      this.#peers.set(route.toString("hex"), rank);
      this.#life.expect(rank);
      this.#whereabouts.saw(rank, "joined");
      this.#sendTo(route, { type: "joined", id }, welcome(rank));
    }
  }

  #silent(ranks: readonly number[], seconds = this.options.timeoutSeconds): void {
    const have = ranks.length === 1 ? "has" : "have";
    this.events.overdue(
      `${rankList(ranks)} ${have} given no sign of life for more than ${seconds} s: stopped, or stuck in a driver${this.#whereabouts.of(ranks)}.`,
    );
  }

  /** A deadlock on a device looks like this, and so does long work: it is told of, and left to the user. */
  #tellOfQuiet(): void {
    const { size, timeoutSeconds } = this.options;
    const now = performance.now();
    // The launcher itself was stopped for a while: what was said meanwhile is still to be read.
    const late = now - this.#lastLook > 1500 * timeoutSeconds;
    this.#lastLook = now;
    const waiting = this.#values.awaited || this.#barriers.awaited || !this.#requests.busy;
    if (late || waiting || this.#routes.size < size || this.#whereabouts.quiet < timeoutSeconds * 1000) return;
    const seen = this.#whereabouts.of(missingFrom(size, []));
    this.events.warning(
      harmless(`For more than ${timeoutSeconds} s no rank has asked for or handed over anything${seen}.`),
    );
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
