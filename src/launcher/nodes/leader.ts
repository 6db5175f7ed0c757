import type { Router } from "zeromq";
import { DitrunError, messageOf } from "../../failure.js";
import { messagesOf } from "../../protocol/frames.js";
import { parseMessage } from "../../protocol/messages.js";
import {
  type Ending,
  type FollowerMessage,
  followerMessageSchema,
  type LeaderMessage,
  pulseMilliseconds,
  silenceMilliseconds,
} from "../../protocol/node-messages.js";
import { counted } from "../../text.js";
import { ownAddressAmong } from "../cluster/addresses.js";
import { tcpOf } from "../cluster/endpoint.js";
import { Happenings } from "../happenings.js";
import { Complaints } from "../rendezvous/complaints.js";
import { giveBackContext, takeContext } from "../rendezvous/contexts.js";
import { Door } from "../rendezvous/door.js";
import { serverSocket } from "../rendezvous/server-socket.js";
import { admitOnly } from "../rendezvous/zap.js";
import { checkFiles } from "../room.js";
import { harmless, visible } from "../terminal-text.js";
import { type Asked, type Common, type Follower, Followers } from "./followers.js";
import type { curvePairs } from "./job-key.js";
import type { Member } from "./members.js";
import { type LaunchPlace, RemoteLaunch } from "./remote-launch.js";

export interface LeaderOptions extends Common {
  readonly host: string;
  /** Where to listen. */
  readonly address: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly keys: ReturnType<typeof curvePairs>;
  /** Seconds until all hosts must have come. */
  readonly timeoutSeconds: number;
  readonly warn: (sentence: string) => void;
}

/** A launcher that is there answers a question about that sooner. */
const ANSWER_MILLISECONDS = 2500;
/** How long followers may take to say that they have heard the end. */
const FAREWELL_MILLISECONDS = 1500;
const LINGER_MILLISECONDS = 500;

/** Node 0's end of what the launchers of a job say to each other: it gathers them, and tells them what to start and when to end. */
export class Leader {
  readonly #context = takeContext();
  readonly #socket: Router;
  readonly #followers: Followers;
  readonly #happenings = new Happenings();
  readonly #broken = new AbortController();
  readonly #strangers: Complaints;
  readonly #invalid: Complaints;
  readonly #refused: Complaints;
  readonly #closers: (() => void)[] = [];
  #gathered = false;
  #launches = 0;
  #launch: RemoteLaunch | undefined;
  #sending: Promise<void> = Promise.resolve();
  #closed = false;
  #lastPulse = performance.now();
  #probing: NodeJS.Timeout | undefined;

  private constructor(private readonly options: LeaderOptions) {
    const { warn, address, keys } = options;
    this.#strangers = new Complaints("launchers or others with another key tried to join", warn);
    this.#invalid = new Complaints("messages of other hosts were not valid", warn);
    this.#refused = new Complaints("launchers were refused", warn);
    this.#closers.push(() => {
      for (const complaints of [this.#strangers, this.#invalid, this.#refused]) complaints.close();
    });
    this.#followers = new Followers(options, options.host);
    this.#socket = serverSocket(this.#context, keys.leader.secretKey, address, LINGER_MILLISECONDS);
    const door = new Door(this.#socket, options.nodes, () => this.port, warn);
    this.#closers.push(() => door.close());
    // Who has another key for node 0 itself fails before anybody is asked about it.
    const stranger = () => this.#strangers.add("A connection does not show this job's key, and was refused.");
    this.#socket.events.on("handshake:error:protocol", stranger);
    this.#socket.events.on("handshake:error:other", stranger);
    this.#socket.events.on("disconnect", () => this.#probe());
  }

  /** @throws DitrunError where it cannot listen there, or too few files may be open. */
  static async open(options: LeaderOptions): Promise<Leader> {
    const { address, port, keys, warn } = options;
    checkFiles(0, options.nodes - 1);
    const leader = new Leader(options);
    const zap = await admitOnly(leader.#context, [keys.follower.publicKey], warn, (from) => {
      leader.#strangers.add(`A connection from ${visible(from)} does not show this job's key, and was refused.`);
    });
    leader.#closers.push(() => zap.close());
    leader.#closers.push(() => leader.#socket.close());
    try {
      await leader.#socket.bind(tcpOf({ host: address, port }).replace(/:0$/, ":*"));
    } catch (error) {
      leader.close();
      throw new DitrunError(
        "ERR_PORT_TAKEN",
        `Node 0 cannot listen on ${address}, port ${port} (${messageOf(error)}): give all hosts another --master-port, or --local-addr here.`,
        { cause: error },
      );
    }
    const pulse = setInterval(() => leader.#pulse(), pulseMilliseconds);
    leader.#closers.push(() => clearInterval(pulse));
    leader
      .#receive()
      .catch((error: unknown) => leader.#break(`Other hosts cannot be heard any more: ${messageOf(error)}.`));
    return leader;
  }

  get port(): number {
    return Number(this.#socket.lastEndpoint?.split(":").at(-1));
  }

  get address(): string {
    return this.options.address;
  }

  /**
   * This host's address for what is started here: where it listens, or where the others have reached it. So every rank of the job is
   * told the same, and none of them the loopback while others are elsewhere.
   */
  get ownAddress(): string {
    return ownAddressAmong(
      this.options.address,
      [...this.#followers.all].map(({ reached }) => reached),
    );
  }

  /** The followers by node, from node 1 on. */
  get members(): readonly Member[] {
    return this.#followers.inOrder;
  }

  /** Aborted with a DitrunError where another host is lost, or cannot go on. */
  get broken(): AbortSignal {
    return this.#broken.signal;
  }

  /** Waits until all hosts have come. @throws DitrunError naming those that are missing at the deadline; or the signal's reason. */
  async gather(signal?: AbortSignal): Promise<void> {
    const { nodes, timeoutSeconds } = this.options;
    const wake = () => this.#happenings.tell();
    signal?.addEventListener("abort", wake);
    const all = () => this.#followers.size === nodes - 1;
    await this.#happenings.until(
      () => all() || (signal?.aborted ?? false) || this.broken.aborted,
      timeoutSeconds * 1000,
    );
    signal?.removeEventListener("abort", wake);
    signal?.throwIfAborted();
    this.broken.throwIfAborted();
    this.#gathered = all();
    if (this.#gathered) return;
    const { missing, here } = this.#followers.gaps;
    throw new DitrunError(
      "ERR_RENDEZVOUS",
      `${counted(missing.length, "host")} of ${nodes} did not come within ${timeoutSeconds} s: node ${missing.slice(0, 20).join(", ")}. Here ${this.#followers.size === 0 ? "is" : "are"} ${here}. Start ditrun there too, with the same command and key.`,
    );
  }

  /** A launch whose ranks on other hosts are to be started. */
  prepare(place: LaunchPlace): RemoteLaunch {
    this.#launch = new RemoteLaunch(this.#launches++, place, this.members);
    return this.#launch;
  }

  /** Tells every follower that the job is over, and how, waits for them to hear it, and closes. */
  async over(ending: Ending): Promise<void> {
    if (this.#closed) return;
    const rest = () => [...this.#followers.all].filter(({ lost, gone }) => !lost && !gone);
    for (const follower of rest()) follower.send({ type: "over", ...ending });
    await this.#happenings.until(() => rest().length === 0, FAREWELL_MILLISECONDS);
    await this.#sending;
    this.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#probing);
    for (const close of this.#closers) close();
    giveBackContext(this.#context);
  }

  async #receive(): Promise<void> {
    for await (const [route, frame] of messagesOf(this.#socket)) {
      if (this.#closed) return;
      if (route === undefined || frame === undefined) continue;
      const follower = this.#followers.at(route.toString("hex"));
      try {
        this.#handle(route, follower, parseMessage(followerMessageSchema, frame));
      } catch (error) {
        this.#invalid.add(
          `A message of ${follower?.name ?? "a launcher"} is not valid: ${harmless(messageOf(error))}.`,
        );
      }
    }
  }

  #handle(route: Buffer, follower: Follower | undefined, message: FollowerMessage): void {
    if (message.type === "register") {
      if (follower) throw new Error("it has registered already");
      this.#register(route, message);
      return;
    }
    if (follower === undefined || follower.lost)
      throw new Error(`${message.type} came from a launcher that has no place here`);
    follower.heard = performance.now();
    switch (message.type) {
      case "alive":
        break;
      case "bye":
        follower.gone = true;
        break;
      case "failed":
        this.#fail(
          new DitrunError(message.code, `${follower.name}: ${harmless(message.message)}`, {
            exitCode: message.exitCode,
            host: follower.host,
          }),
        );
        break;
      default:
        if (!this.#launch) throw new Error("there is no launch");
        this.#launch.handle(follower, message);
    }
    this.#happenings.tell();
  }

  #register(route: Buffer, asked: Asked): void {
    const send = (message: LeaderMessage) => this.#sendTo(route, message);
    const admitted = this.#followers.admit(route.toString("hex"), asked, this.#gathered, send);
    if (typeof admitted === "string") {
      this.#refused.add(`The launcher on ${visible(asked.host)} (process ${asked.pid}) was refused. ${admitted}`);
      send({ type: "refused", message: admitted });
      return;
    }
    send({ type: "registered", node: admitted.node });
    this.#happenings.tell();
  }

  #pulse(): void {
    const now = performance.now();
    // Time in which this launcher itself did not run is nobody's silence: what was said meanwhile is still to be read.
    const late = Math.max(0, now - this.#lastPulse - pulseMilliseconds);
    this.#lastPulse = now;
    for (const follower of this.#followers.all) {
      follower.heard += late;
      if (!follower.lost) follower.send({ type: "alive" });
    }
    this.#loseSilent(now - silenceMilliseconds);
  }

  /** A connection has ended, nobody says whose: those that are there say so. */
  #probe(): void {
    if (this.#closed || this.#probing || this.#followers.size === 0) return;
    const asked = performance.now();
    for (const follower of this.#followers.all) if (!follower.lost) follower.send({ type: "alive" });
    this.#probing = setTimeout(() => {
      this.#probing = undefined;
      this.#loseSilent(asked);
    }, ANSWER_MILLISECONDS);
  }

  #loseSilent(since: number): void {
    for (const follower of [...this.#followers.all]) {
      if (follower.lost || follower.gone || follower.heard >= since) continue;
      if (!this.#gathered) {
        this.#followers.forget(follower);
        this.options.warn(`${follower.name} was there and has gone again: start ditrun there anew.`);
        continue;
      }
      follower.lost = true;
      const ranks = this.#launch?.ranksOf(follower);
      this.#launch?.lost(follower);
      const lost = ranks === undefined ? "is lost" : `is lost with ${ranks}`;
      const ago = Math.round((performance.now() - follower.heard) / 1000);
      this.#break(
        `${follower.name} ${lost}: its launcher was killed, or the link to it is cut. It was last heard of ${ago} s ago.`,
        follower.host,
      );
    }
  }

  #break(message: string, host?: string): void {
    this.#fail(new DitrunError("ERR_HOST_LOST", message, { host }));
  }

  #fail(error: DitrunError): void {
    if (!this.broken.aborted) this.#broken.abort(error);
    this.#happenings.tell();
  }

  /** A ROUTER takes one message at a time, and drops what is for a peer that has gone. */
  #sendTo(route: Buffer, message: LeaderMessage): void {
    this.#sending = this.#sending
      .then(async () => {
        if (!this.#closed) await this.#socket.send([route, JSON.stringify(message)]);
      })
      .catch((error: unknown) => {
        if (!this.#closed) this.options.warn(`A ${message.type} message was not sent: ${messageOf(error)}.`);
      });
  }
}
