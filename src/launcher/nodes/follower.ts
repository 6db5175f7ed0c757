import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { asDitrunError, DitrunError, messageOf } from "../../failure.js";
import { type Ending, type LeaderMessage, silenceMilliseconds } from "../../protocol/node-messages.js";
import { endAll } from "../ending.js";
import { Happenings } from "../happenings.js";
import { type LocalRank, LocalRanks, type RanksHere } from "../local-ranks.js";
import type { Log } from "../logs.js";
import { checkRoom } from "../room.js";
import { startReaper } from "../start-reaper.js";
import { harmless } from "../terminal-text.js";
import type { Program, WorkerExit } from "../worker-process.js";
import type { Common } from "./followers.js";
import { LeaderLink, type Located, type Question } from "./leader-link.js";

/** Ranks that a leader has started here. */
export type Start = Extract<LeaderMessage, { type: "start" }> & {
  /** This host's number. */
  readonly node: number;
  /** The leader's address, as this host reaches it. */
  readonly address: string;
  /** This host's address on the way there. */
  readonly ownAddress: string | undefined;
};

export interface FollowerOptions extends Common {
  readonly node: number | undefined;
  readonly workers: number | undefined;
  /** JSON about this host, for the leader's engine. */
  readonly offer: string;
  /** Where the leader is and what key it has, as far as that is known now. @throws Error saying why it is not. */
  readonly locate: () => Promise<Located>;
  /** This host's address to come from; the system's choice by default. */
  readonly localAddress: string | undefined;
  /** Seconds until the leader must have answered. */
  readonly timeoutSeconds: number;
  /** What a rank is. */
  readonly program: (rank: number, start: Start) => Program;
  /** What holds the ranks of a launch; processes of this host by default. */
  readonly ranks?: ((id: string, mark: string, log: Log) => RanksHere) | undefined;
  /** What else is known of why a rank ended. */
  readonly reasonOf?: (rank: number) => string | undefined;
  /** How long ranks may take to end. */
  readonly graceMilliseconds?: number | undefined;
  readonly log: Log;
  /** Ends this host's part, and with it the job; its reason is a DitrunError. */
  readonly signal?: AbortSignal | undefined;
  /** After that nobody waits. */
  readonly urgent?: AbortSignal | undefined;
}

/** How long the leader may take to end the job that this host cannot go on with. */
const VERDICT_MILLISECONDS = 4500;
const PULSE_MILLISECONDS = 250;

/**
 * This host's part of a job that another leads: registers there, starts and ends ranks as it is told, and leaves none behind,
 * also where the leader is lost.
 * @returns the exit code that the leader ends with. @throws DitrunError: the first cause of the job, the same on every host; ERR_HOST_LOST where the leader is lost, ERR_RENDEZVOUS
 * or ERR_JOB_KEY where it cannot be reached or has no place for this host. Or the signal's reason.
 */
export async function follow(options: FollowerOptions): Promise<number> {
  const follower = new Follower(options);
  try {
    return await follower.run();
  } finally {
    await follower.close();
  }
}

type Verdict =
  | { readonly kind: "over"; readonly ending: Ending }
  | { readonly kind: "lost"; readonly error: DitrunError };

interface Running {
  readonly number: number;
  readonly ranks: RanksHere;
  readonly endReaper: () => void;
}

class Follower {
  readonly #happenings = new Happenings();
  readonly #link: LeaderLink;
  #node: number | undefined;
  #running: Running | undefined;
  #ending: Promise<unknown> = Promise.resolve();
  #verdict: Verdict | undefined;
  readonly #onAbort = () => this.#happenings.tell();

  constructor(private readonly options: FollowerOptions) {
    this.#link = new LeaderLink(options, {
      message: (message) => this.#handle(message),
      lost: (why) => this.#decide({ kind: "lost", error: new DitrunError("ERR_HOST_LOST", why) }),
    });
    options.signal?.addEventListener("abort", this.#onAbort);
    options.urgent?.addEventListener("abort", this.#onAbort);
  }

  async run(): Promise<number> {
    const { signal, nodes, log } = this.options;
    this.#node = await this.#link.register(this.#question(), signal);
    log.logger.info(`Node ${this.#node} of ${nodes} has registered with node 0 at ${this.#link.address}.`);
    this.#link.listen();
    const watch = setInterval(() => this.#watch(), PULSE_MILLISECONDS);
    try {
      await this.#happenings.until(() => this.#verdict !== undefined || this.#aborted);
      if (this.#verdict === undefined) await this.#tellOfAbort();
      const verdict = this.#verdict;
      if (verdict?.kind === "over") await this.#link.sayBye();
      await this.#end();
      if (verdict === undefined) signal?.throwIfAborted();
      else if (verdict.kind === "lost") throw verdict.error;
      else if (verdict.ending.failure) throw errorOf(verdict.ending);
      return verdict?.ending.exitCode ?? 0;
    } finally {
      clearInterval(watch);
    }
  }

  async close(): Promise<void> {
    this.options.signal?.removeEventListener("abort", this.#onAbort);
    this.options.urgent?.removeEventListener("abort", this.#onAbort);
    this.#running?.ranks.kill();
    this.#running?.endReaper();
    await this.#link.close();
  }

  get #aborted(): boolean {
    return this.options.signal?.aborted ?? false;
  }

  #question(): Question {
    const { version, node, nodes, job, command, workers, offer } = this.options;
    const asked = { version, nodes, job, command, offer, host: hostname(), pid: process.pid };
    return {
      type: "register",
      ...asked,
      ...(node !== undefined && { node }),
      ...(workers !== undefined && { workers }),
    };
  }

  /** A signal to this launcher ends the whole job, by the leader's word where that comes in time. */
  async #tellOfAbort(): Promise<void> {
    const { code, message, exitCode } = asDitrunError(this.options.signal?.reason, "ERR_ABORTED");
    this.#link.send({ type: "failed", code, message, exitCode });
    const urgent = () => this.options.urgent?.aborted ?? false;
    await this.#happenings.until(() => urgent() || this.#verdict !== undefined, VERDICT_MILLISECONDS);
  }

  #decide(verdict: Verdict): void {
    this.#verdict ??= verdict;
    this.#happenings.tell();
  }

  #watch(): void {
    const silent = this.#link.silentFor(PULSE_MILLISECONDS);
    if (silent < silenceMilliseconds) return;
    const message = `Node 0 at ${this.#link.address} has given no sign of life for ${Math.round(silent / 1000)} s: its host is gone, or the link to it is cut.`;
    this.#decide({ kind: "lost", error: new DitrunError("ERR_HOST_LOST", message) });
  }

  #handle(message: LeaderMessage): void {
    switch (message.type) {
      case "alive":
        this.#link.send({ type: "alive" });
        break;
      case "start":
        // One after the other: what is left of the launch before is ended first.
        this.#ending = this.#ending.then(() => this.#start(message)).catch((error: unknown) => this.#failed(error));
        break;
      case "signal":
        if (this.#running?.number !== message.launch) return;
        for (const each of this.#running.ranks.all) if (message.ranks.includes(each.rank)) each.signal(message.signal);
        break;
      case "end":
        this.#ending = this.#ending.then(async () => {
          const stuck = this.#running?.number === message.launch ? await this.#end() : [];
          this.#link.send({ type: "ended", launch: message.launch, stuck });
        });
        break;
      case "over":
        this.#decide({ kind: "over", ending: message });
        break;
      default:
        break;
    }
  }

  async #start(start: Extract<LeaderMessage, { type: "start" }>): Promise<void> {
    await this.#end();
    const { log, program } = this.options;
    checkRoom(start.count);
    // Of this host alone: launchers that share one must not end each other's.
    const mark = `${start.mark}.${this.#node}`;
    const { ranks: make = (...of) => new LocalRanks(...of) } = this.options;
    const ranks = make(start.id, mark, log);
    const told = { ...start, node: this.#node ?? 0, address: this.#link.address, ownAddress: this.#link.ownAddress };
    let endReaper: (() => void) | undefined;
    this.#running = { number: start.launch, ranks, endReaper: () => endReaper?.() };
    for (let rank = start.first; rank < start.first + start.count && this.#verdict === undefined; rank++) {
      const own = program(rank, told);
      // Other programs than ditrun's workers do not notice that this launcher was killed.
      if (own.stdin === "empty") {
        endReaper ??= startReaper(mark, (error) => log.logger.warn(`No reaper: ${messageOf(error)}.`));
      }
      const worker = ranks.start(rank, own);
      void worker.died.then(() => this.#died(start.launch, worker));
      void worker.exited.then((exit) => this.#exited(start.launch, worker, exit));
    }
    this.#link.send({ type: "started", launch: start.launch, pids: ranks.all.map(({ pid }) => pid ?? null) });
  }

  #died(launch: number, { rank, endedAt = performance.now() }: LocalRank): void {
    this.#link.send({ type: "dying", launch, rank, ago: Math.max(0, performance.now() - endedAt) });
  }

  #exited(launch: number, { rank, endedAt, stderrTail, exception, place }: LocalRank, exit: WorkerExit): void {
    this.#happenings.tell();
    if (exit.kind === "lost") return;
    const ago = Math.max(0, performance.now() - (endedAt ?? performance.now()));
    const reason = this.options.reasonOf?.(rank) ?? exception;
    const said = { ...(reason !== undefined && { reason }), ...(place !== undefined && { place }) };
    this.#link.send({ type: "exited", launch, rank, exit, ago, lines: [...stderrTail], ...said });
  }

  #failed(error: unknown): void {
    const { code, message, exitCode } = asDitrunError(error);
    this.#link.send({ type: "failed", code, message, exitCode });
  }

  /** Ends what runs here, and all that it has started. @returns processes that did not end. */
  async #end(): Promise<number[]> {
    const running = this.#running;
    if (running === undefined) return [];
    const { ranks, endReaper } = running;
    const urgent = () => this.options.urgent?.aborted ?? false;
    const stuck = await endAll(ranks.all, this.#happenings, urgent, {
      milliseconds: this.options.graceMilliseconds,
    });
    await ranks.killStrays();
    endReaper();
    if (this.#running === running) this.#running = undefined;
    if (stuck.length === 0) await Promise.all(ranks.all.map((worker) => worker.exited));
    // So that the ends are told before the end of all.
    await sleep(0);
    return stuck.flatMap(({ pid }) => pid ?? []);
  }
}

function errorOf({ failure, exitCode }: Ending): DitrunError {
  const { code = "ERR_INTERNAL", message = "", ...details } = failure ?? {};
  // A cause has lines of a rank's stderr, which stand in from the margin already.
  return new DitrunError(code, message.split("\n").map(harmless).join("\n"), { ...details, exitCode });
}
