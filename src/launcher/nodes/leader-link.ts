import { setTimeout as sleep } from "node:timers/promises";
import { Dealer } from "zeromq";
import { DitrunError, messageOf } from "../../failure.js";
import { connectTo } from "../../protocol/connect.js";
import { messagesOf } from "../../protocol/frames.js";
import { parseMessage } from "../../protocol/messages.js";
import { type FollowerMessage, type LeaderMessage, leaderMessageSchema } from "../../protocol/node-messages.js";
import { sourceTowards } from "../cluster/addresses.js";
import { type Endpoint, tcpOf } from "../cluster/endpoint.js";
import { giveBackContext, takeContext } from "../rendezvous/contexts.js";
import type { curvePairs } from "./job-key.js";

/** Where the leader is, and the job's key. */
export interface Located extends Endpoint {
  /** An address, no name. */
  readonly host: string;
  readonly keys: ReturnType<typeof curvePairs>;
  /** Whether another key may stand in its place later: a file that the leader has yet to write anew. */
  readonly mayChange: boolean;
}

/** What a launcher says of itself; the link knows where it has reached the leader. */
export type Question = Omit<Extract<FollowerMessage, { type: "register" }>, "reached">;

interface LinkOptions {
  readonly locate: () => Promise<Located>;
  readonly localAddress: string | undefined;
  readonly timeoutSeconds: number;
}

interface LinkEvents {
  message(message: LeaderMessage): void;
  /** After registering: the sentence says why. */
  lost(why: string): void;
}

const RETRY_MILLISECONDS = 500;
/** With one key on both sides a handshake does not fail so often. */
const MOST_HANDSHAKES = 3;
const LINGER_MILLISECONDS = 500;

/** A follower's connection to its leader, looked for until it is there. */
export class LeaderLink {
  readonly #context = takeContext();
  #socket: Dealer | undefined;
  #at: Located | undefined;
  #ownAddress: string | undefined;
  #sending: Promise<void> = Promise.resolve();
  #heard = performance.now();
  #lastLook = performance.now();
  #registered = false;
  /** What came with the answer, before whoever registers has read that. */
  #early: LeaderMessage[] | undefined = [];
  #closed = false;
  #failedHandshakes = 0;
  #answer: ((message: LeaderMessage) => void) | undefined;

  constructor(
    private readonly options: LinkOptions,
    private readonly events: LinkEvents,
  ) {}

  /** The leader's address. */
  get address(): string {
    return this.#at?.host ?? "an unknown address";
  }

  /** This host's address on the way to it. */
  get ownAddress(): string | undefined {
    return this.#ownAddress;
  }

  /**
   * Milliseconds since the leader was heard of; time in which this process did not run does not count.
   * @param period between two calls.
   */
  silentFor(period: number): number {
    const now = performance.now();
    this.#heard += Math.max(0, now - this.#lastLook - period);
    this.#lastLook = now;
    return now - this.#heard;
  }

  /**
   * Registers with the leader, wherever and whenever it comes up.
   * @returns this host's number. @throws DitrunError where it is refused, or not answered in time; or the signal's reason.
   */
  async register(question: Question, signal: AbortSignal | undefined): Promise<number> {
    const deadline = performance.now() + this.options.timeoutSeconds * 1000;
    let answer: LeaderMessage | undefined;
    this.#answer = (message) => {
      answer ??= message;
    };
    let why = "";
    let asked: Dealer | undefined;
    while (answer === undefined) {
      signal?.throwIfAborted();
      try {
        await this.#connect(await this.options.locate());
        why = "nobody answers there";
        if (asked !== this.#socket) this.send({ ...question, reached: this.address });
        asked = this.#socket;
      } catch (error) {
        if (error instanceof DitrunError) throw error;
        why = messageOf(error);
      }
      this.#refuseKey();
      const left = deadline - performance.now();
      if (left <= 0) throw this.#unanswered(why);
      for (let waited = 0; waited < RETRY_MILLISECONDS && answer === undefined; waited += 20) await sleep(20);
    }
    if (answer.type !== "registered") {
      const why = answer.type === "refused" ? answer.message : `It answered with ${answer.type}.`;
      throw new DitrunError("ERR_RENDEZVOUS", `Node 0 at ${this.address} refused this host. ${why}`);
    }
    this.#registered = true;
    this.#heard = this.#lastLook = performance.now();
    const { host = "", port = 1 } = this.#at ?? {};
    this.#ownAddress = this.options.localAddress ?? (await sourceTowards(host, port));
    return answer.node;
  }

  /** From now on messages are handed on, with those that have come meanwhile. */
  listen(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const message of early) this.events.message(message);
  }

  send(message: FollowerMessage): void {
    const socket = this.#socket;
    this.#sending = this.#sending
      .then(async () => {
        if (socket && !socket.closed) await socket.send(JSON.stringify(message));
      })
      .catch((error: unknown) => {
        if (socket === this.#socket && this.#registered)
          this.events.lost(`Node 0 cannot be reached: ${messageOf(error)}.`);
      });
  }

  async sayBye(): Promise<void> {
    this.send({ type: "bye" });
    await this.#sending;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#registered = false;
    // What was said last is still to be sent, where somebody listens.
    await Promise.race([this.#sending, sleep(LINGER_MILLISECONDS)]);
    this.#socket?.close();
    giveBackContext(this.#context);
  }

  async #connect(located: Located): Promise<void> {
    const same =
      this.#at?.host === located.host &&
      this.#at.port === located.port &&
      this.#at.keys.leader.publicKey === located.keys.leader.publicKey;
    if (same) return;
    this.#socket?.close();
    this.#failedHandshakes = 0;
    this.#at = located;
    const { keys, host, port } = located;
    const socket = new Dealer({
      ...{ context: this.#context, ipv6: host.includes(":"), linger: LINGER_MILLISECONDS, sendHighWaterMark: 0 },
      ...{ curveServerKey: keys.leader.publicKey, curvePublicKey: keys.follower.publicKey },
      ...{ curveSecretKey: keys.follower.secretKey, receiveHighWaterMark: 0, reconnectInterval: 100 },
    });
    this.#socket = socket;
    const refused = () => {
      if (socket === this.#socket) this.#failedHandshakes++;
    };
    socket.events.on("handshake:error:auth", refused);
    socket.events.on("handshake:error:protocol", refused);
    socket.events.on("handshake:error:other", refused);
    socket.events.on("disconnect", () => {
      // Of a leader that is there: its process has ended, or its host says that it knows nothing of the connection.
      if (socket === this.#socket && this.#registered)
        this.events.lost(`Node 0 at ${this.address} is gone: its launcher was killed, or its host has restarted.`);
    });
    const { localAddress } = this.options;
    const to = tcpOf({ host, port });
    connectTo(
      socket,
      localAddress === undefined ? to : `${tcpOf({ host: localAddress, port: 0 })};${to.slice("tcp://".length)}`,
    );
    this.#receive(socket).catch((error: unknown) => {
      if (socket === this.#socket && this.#registered)
        this.events.lost(`Node 0 cannot be heard any more: ${messageOf(error)}.`);
    });
  }

  async #receive(socket: Dealer): Promise<void> {
    for await (const [frame] of messagesOf(socket)) {
      if (frame === undefined || this.#closed || socket !== this.#socket) continue;
      this.#heard = performance.now();
      const message = parseMessage(leaderMessageSchema, frame);
      const first = message.type === "registered" || message.type === "refused";
      if (first) this.#answer?.(message);
      else if (this.#early) this.#early.push(message);
      else this.events.message(message);
    }
  }

  /** @throws DitrunError where whoever listens there has another key, for good. */
  #refuseKey(): void {
    if (this.#failedHandshakes < MOST_HANDSHAKES || this.#at?.mayChange) return;
    const { host = "", port = 0 } = this.#at ?? {};
    throw new DitrunError(
      "ERR_JOB_KEY",
      `Whoever listens at ${host}, port ${port}, does not have this host's job key: give all hosts the same key, and this job a port of its own.`,
    );
  }

  #unanswered(why: string): DitrunError {
    const where =
      this.#at === undefined
        ? "Node 0 was not found"
        : `Node 0 did not answer at ${this.#at.host}, port ${this.#at.port},`;
    return new DitrunError(
      "ERR_RENDEZVOUS",
      `${where} within ${this.options.timeoutSeconds} s (${why}): start ditrun there too, or correct --master-addr and --master-port.`,
    );
  }
}
