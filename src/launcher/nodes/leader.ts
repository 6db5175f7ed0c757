import { Context, Router } from "zeromq";
import { DitrunError, messageOf } from "../../failure.js";
import { MOST_FRAME_BYTES, messagesOf } from "../../protocol/frames.js";
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
import { tcpOf } from "../cluster/endpoint.js";
import { Happenings } from "../happenings.js";
import { Complaints } from "../rendezvous/complaints.js";
import { admitOnly } from "../rendezvous/zap.js";
import { harmless, visible } from "../terminal-text.js";
import { missingFrom } from "../whereabouts.js";
import type { curvePairs } from "./job-key.js";
import type { Member } from "./members.js";
import { type LaunchPlace, RemoteLaunch } from "./remote-launch.js";

/** What every launcher of a job must have in common with the leader. */
export interface Common {
  readonly version: string;
  readonly nodes: number;
  readonly job: string;
  /** Of what the job is. */
  readonly command: string;
}

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

/** Messages of one follower that may wait to be read. */
const MOST_WAITING_MESSAGES = 4096;
const FRAME_OVERHEAD = 1024;
const HANDSHAKE_MILLISECONDS = 15_000;
/** A launcher that is there answers a question about that sooner. */
const ANSWER_MILLISECONDS = 2500;
/** How long followers may take to say that they have heard the end. */
const FAREWELL_MILLISECONDS = 1500;
const LINGER_MILLISECONDS = 500;

interface Follower extends Member {
  readonly route: Buffer;
  readonly pid: number;
  heard: number;
  lost: boolean;
  gone: boolean;
}

/** Node 0's end of what the launchers of a job say to each other: it gathers them, and tells them what to start and when to end. */
export class Leader {
  readonly #context = new Context({ blocky: false });
  readonly #socket: Router;
  readonly #followers = new Map<string, Follower>();
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
    this.#socket = new Router({
      ...{ context: this.#context, curveServer: true, curveSecretKey: keys.leader.secretKey },
      ...{ ipv6: address.includes(":"), linger: LINGER_MILLISECONDS, sendHighWaterMark: 0 },
      ...{ receiveHighWaterMark: MOST_WAITING_MESSAGES, maxMessageSize: MOST_FRAME_BYTES + FRAME_OVERHEAD },
      handshakeInterval: HANDSHAKE_MILLISECONDS,
    });
    // Who has another key for node 0 itself fails before anybody is asked about it.
    const stranger = () => this.#strangers.add("A connection does not show this job's key, and was refused.");
    this.#socket.events.on("handshake:error:protocol", stranger);
    this.#socket.events.on("handshake:error:other", stranger);
    this.#socket.events.on("disconnect", () => this.#probe());
  }

  /** @throws DitrunError where it cannot listen there. */
  static async open(options: LeaderOptions): Promise<Leader> {
    const { address, port, keys, warn } = options;
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

  /** The followers by node, from node 1 on. */
  get members(): readonly Member[] {
    return [...this.#followers.values()].sort((a, b) => a.node - b.node);
  }

  /** Aborted with a DitrunError where another host is lost, or cannot go on. */
  get broken(): AbortSignal {
    return this.#broken.signal;
  }

  /** Waits until all hosts have come. @throws DitrunError naming those that are missing at the deadline; or the signal's reason. */
  async gather(signal?: AbortSignal): Promise<void> {
    const { nodes, timeoutSeconds, host } = this.options;
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
    const here = [{ node: 0, host }, ...this.members];
    const missing = missingFrom(
      nodes,
      here.map(({ node }) => node),
    );
    const there = here.map((each) => `node ${each.node} (${visible(each.host)})`).join(", ");
    throw new DitrunError(
      "ERR_RENDEZVOUS",
      `${counted(missing.length, "host")} of ${nodes} did not come within ${timeoutSeconds} s: node ${missing.slice(0, 20).join(", ")}. Here ${here.length === 1 ? "is" : "are"} ${there}. Start ditrun there too, with the same command and key.`,
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
    const rest = () => [...this.#followers.values()].filter(({ lost, gone }) => !lost && !gone);
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
  }

  async #receive(): Promise<void> {
    for await (const [route, frame] of messagesOf(this.#socket)) {
      if (this.#closed) return;
      if (route === undefined || frame === undefined) continue;
      const follower = this.#followers.get(route.toString("hex"));
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

  #register(route: Buffer, asked: Extract<FollowerMessage, { type: "register" }>): void {
    const host = visible(asked.host);
    const node = asked.node ?? missingFrom(this.options.nodes, [0, ...this.members.map((each) => each.node)])[0];
    const why = this.#whyNot(asked, node);
    if (why !== undefined || node === undefined) {
      this.#refused.add(`The launcher on ${host} (process ${asked.pid}) was refused. ${why}`);
      this.#sendTo(route, { type: "refused", message: why ?? "" });
      return;
    }
    const send = (message: LeaderMessage) => this.#sendTo(route, message);
    this.#followers.set(route.toString("hex"), {
      ...{ node, host, name: `Host ${host} (node ${node})`, workers: asked.workers, offer: asked.offer, route, send },
      ...{ pid: asked.pid, heard: performance.now(), lost: false, gone: false },
    });
    send({ type: "registered", node });
    this.#happenings.tell();
  }

  /** Why the launcher has no place here, in a sentence. */
  #whyNot(asked: Extract<FollowerMessage, { type: "register" }>, node: number | undefined): string | undefined {
    const { version, nodes, job, command } = this.options;
    const name = asked.node === undefined ? "The launcher" : `Node ${asked.node}`;
    if (asked.version !== version)
      return `${name} has ditrun ${visible(asked.version)}, but node 0 has ${version}: install one on all hosts.`;
    if (asked.job !== job)
      return `${name} is of another job or attempt, ${visible(asked.job)}; this is ${job}: end the old one.`;
    if (asked.nodes !== nodes)
      return `${name} was told of ${counted(asked.nodes, "host")}, node 0 of ${nodes}: give all the same --nnodes.`;
    if (asked.command !== command)
      return `${name} was given another command or other options than node 0: give all hosts the same.`;
    const other = this.members.find((each) => each.node === node);
    if (node === 0 || other)
      return `There is a node ${node} already, on ${other?.host ?? this.options.host}: give each host a --node-rank of its own.`;
    if (node === undefined || this.#gathered) return `All ${nodes} hosts of this job are there already.`;
    return node < nodes ? undefined : `Node ${node} is none of ${nodes}: hosts are counted from 0.`;
  }

  #pulse(): void {
    const now = performance.now();
    // This launcher itself was stopped for a while: what was said meanwhile is still to be read.
    const late = now - this.#lastPulse > silenceMilliseconds / 2;
    this.#lastPulse = now;
    for (const follower of this.#followers.values()) {
      if (late) follower.heard = now;
      if (!follower.lost) follower.send({ type: "alive" });
    }
    this.#loseSilent(now - silenceMilliseconds);
  }

  /** A connection has ended, nobody says whose: those that are there say so. */
  #probe(): void {
    if (this.#closed || this.#probing || this.#followers.size === 0) return;
    const asked = performance.now();
    for (const follower of this.#followers.values()) if (!follower.lost) follower.send({ type: "alive" });
    this.#probing = setTimeout(() => {
      this.#probing = undefined;
      this.#loseSilent(asked);
    }, ANSWER_MILLISECONDS);
  }

  #loseSilent(since: number): void {
    for (const [key, follower] of this.#followers) {
      if (follower.lost || follower.gone || follower.heard >= since) continue;
      if (!this.#gathered) {
        this.#followers.delete(key);
        this.options.warn(`${follower.name} was there and has gone again: start ditrun there anew.`);
        continue;
      }
      follower.lost = true;
      const ranks = this.#launch?.ranksOf(follower);
      this.#launch?.lost(follower);
      const lost = ranks === undefined ? "is lost" : `is lost with ${ranks}`;
      this.#break(`${follower.name} ${lost}: its launcher was killed, or the link to it is cut.`, follower.host);
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
