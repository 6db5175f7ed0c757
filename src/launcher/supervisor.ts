import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setImmediate } from "node:timers/promises";
import { DitrunError, messageOf } from "../failure.js";
import { counted } from "../text.js";
import { type Asking, type AskingRule, endAll, SETTLE_MILLISECONDS } from "./ending.js";
import { describeExit, failureOfExit, type KnownExit, reasonOfExit } from "./exit-words.js";
import { type Failure, Failures } from "./first-cause.js";
import { Happenings } from "./happenings.js";
import { LocalRanks } from "./local-ranks.js";
import type { Log } from "./logs.js";
import { outOfMemoryKills } from "./out-of-memory.js";
import { placesOf } from "./places.js";
import { checkRoom } from "./room.js";
import { soundsLikeVictim } from "./victim-words.js";
import { type RankEnd, victimsOf } from "./victims.js";
import { rankList } from "./whereabouts.js";
import type { Program, RankProcess, WorkerExit } from "./worker-process.js";

export interface SupervisorOptions {
  /** Names the log files of its ranks. */
  readonly id: string;
  /** Number of processes on this host, the first ranks of the launch. */
  readonly nproc: number;
  /** Of launchers and ranks of other hosts, to this launcher. */
  readonly connections?: number;
  readonly log: Log;
  /** Ends everything; its reason is the failure to report, a DitrunError. */
  readonly signal?: AbortSignal | undefined;
  /** After that: nobody waits for processes to end by themselves any more. */
  readonly urgent?: AbortSignal | undefined;
  /** Whether the rank has done all that it was started for, so that its exit with code 0 is right. */
  readonly mayEnd: (rank: number) => boolean;
  /** What the rank was doing when it ended with this code, as the end of a sentence: `before it had reported a result`. */
  readonly doing?: (rank: number, code: number) => string | undefined;
  /** How the ranks are asked to end. */
  readonly asking?: AskingRule | undefined;
  /** What else is known of why a rank ended, as a short sentence without its end. */
  readonly reasonOf?: (rank: number) => string | undefined;
  /** A rank has ended, and all its output has been read. */
  readonly onExit?: (rank: number, exit: KnownExit) => void;
}

/** How long the news of an end may take from another host. */
export const NEWS_MILLISECONDS = 100;
/** How long the output of one that ended may take to be read. */
export const TELLING_MILLISECONDS = 1500;
/** What ranks may be sent in place of SIGTERM. */
const signals = ["SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGABRT"] as const;
/** How long a process may take to end once its work is done. */
const FAREWELL_MILLISECONDS = 5000;

/** What a launch has on other hosts. */
export interface Elsewhere {
  /** Starts the ranks after this host's own. @param mark in the environment of all that is started. */
  start(mark: string): readonly RankProcess[];
  /** Ends all that is left there. @returns sentences about what could not be ended. */
  end(): Promise<readonly string[]>;
}

/**
 * The processes of one launch, on this host and, by their launchers, on others: starts them, watches them, finds the first cause where something fails, and
 * leaves no process behind, whatever happens.
 */
export class Supervisor {
  readonly #failures = new Failures();
  readonly #happenings = new Happenings();
  /** By rank. */
  readonly #workers: RankProcess[] = [];
  #elsewhere: Elsewhere | undefined;
  /** Ranks whose end is told. */
  readonly #told = new Set<number>();
  /** Of this launch alone, in the environment of its processes and of all that they start. */
  readonly mark = randomUUID();
  readonly #local: LocalRanks;
  readonly #killsBefore = outOfMemoryKills() ?? 0;
  readonly #began = performance.now();
  readonly #ends: RankEnd[] = [];
  #ending = false;
  readonly #onAbort = () => this.#aborted();
  readonly #onUrgent = () => this.#happenings.tell();

  constructor(private readonly options: SupervisorOptions) {
    checkRoom(options.nproc, options.connections);
    this.#local = new LocalRanks(options.id, this.mark, options.log);
    options.signal?.addEventListener("abort", this.#onAbort);
    options.urgent?.addEventListener("abort", this.#onUrgent);
    if (options.signal?.aborted) this.#aborted();
  }

  /** Starts a process for each rank of this host, and has those of other hosts started. What the first ones say is heard meanwhile. */
  async start(program: (rank: number) => Program, elsewhere?: Elsewhere): Promise<void> {
    for (let rank = 0; rank < this.options.nproc && !this.#ending; rank++) {
      this.#watch(this.#local.start(rank, program(rank)));
      await setImmediate();
    }
    if (this.#ending) return;
    this.#elsewhere = elsewhere;
    for (const process of elsewhere?.start(this.mark) ?? []) this.#watch(process);
  }

  #watch(worker: RankProcess): void {
    this.#workers.push(worker);
    void worker.exited.then((exit) => this.#exited(worker, exit));
  }

  /** Takes note of a reason to end that no process's end tells of. */
  fail(failure: Failure): void {
    this.options.log.logger.debug(`Failure: ${failure.message}`);
    this.#failures.add(failure);
    this.#happenings.tell();
  }

  /** Something has happened that `until` may wait for. */
  tell(): void {
    this.#happenings.tell();
  }

  /** Whether there is a reason to end. */
  get failing(): boolean {
    return this.#failures.some;
  }

  /** Resolves once the condition holds, or there is a reason to end: then with the first cause, after it had the time to show. */
  async until(condition: () => boolean): Promise<Failure | undefined> {
    await this.#happenings.until(() => this.#failures.some || condition());
    if (!this.#failures.some) return undefined;
    // Where all have told of their ends, nothing more is to come.
    const known = () => this.#failures.certain || this.#told.size === this.#workers.length;
    await this.#happenings.until(() => this.#urgent || known(), SETTLE_MILLISECONDS);
    if (this.#elsewhere) await this.#happenings.until(() => this.#urgent, NEWS_MILLISECONDS);
    // One that ended before, but whose output is still being read, is what the others may have ended for.
    await this.#happenings.until(() => this.#urgent || !this.#endedUntoldBefore(), TELLING_MILLISECONDS);
    return this.#failures.cause;
  }

  /**
   * Ends the launch. Without a cause the processes are given the time to end by themselves first.
   * @param tell lets the ranks know that all is over, and why.
   * @throws DitrunError saying what went wrong first, with that process's exit code or 128 + its signal; or the signal's reason.
   */
  async end(cause: Failure | undefined, tell: (message: string) => Promise<void>): Promise<void> {
    try {
      await this.#end(cause, tell);
      // One that crashed on its way out, after its work, still failed.
      const late = cause ?? this.#failures.cause;
      if (late) {
        this.#tellVictims(late);
        throw this.errorOf(late);
      }
    } finally {
      this.release();
    }
  }

  /** Kills whatever still runs, at once. */
  release(): void {
    this.#ending = true;
    this.options.signal?.removeEventListener("abort", this.#onAbort);
    this.options.urgent?.removeEventListener("abort", this.#onUrgent);
    for (const worker of this.#workers) worker.signal("SIGKILL");
  }

  /** `Rank 3 (host, process 4711)`. */
  nameOf(rank: number): string {
    const { pid, host = hostname() } = this.#workers[rank] ?? {};
    return `Rank ${rank} (${host}${pid === undefined ? "" : `, process ${pid}`})`;
  }

  /** The name of the rank's host. */
  hostOf(rank: number): string {
    return this.#workers[rank]?.host ?? hostname();
  }

  /** The failure as an error, with the last lines of the rank that it is about, and when that ended. */
  errorOf({ code, message, exitCode, rank, signal, error, when, whereabouts }: Failure): unknown {
    if (error !== undefined) return error;
    const worker = rank === undefined ? undefined : this.#workers[rank];
    const tail = worker?.stderrTail ?? [];
    const lines = tail.length === 0 ? "" : ` Its last lines on stderr:\n${tail.map((line) => `  ${line}`).join("\n")}`;
    const log = worker?.files?.stderr ?? worker?.files?.stdout;
    const facts = [when && `It ended at ${when}.`, log && `Its log: ${log}`].filter(Boolean).join(" ");
    return new DitrunError(
      code,
      `${message}${whereabouts ? `${placesOf(this.#workers)}.` : ""}${lines}${facts === "" ? "" : `\n${facts}`}`,
      {
        exitCode,
        rank,
        host: rank === undefined ? undefined : this.hostOf(rank),
        signal,
      },
    );
  }

  #tellVictims(cause: Failure): void {
    const sentence = victimsOf(cause, this.#ends);
    if (sentence !== undefined) this.options.log.logger.info(sentence);
  }

  #endedUntoldBefore(): boolean {
    const at = this.#failures.cause?.at ?? 0;
    return this.#workers.some(
      ({ rank, endedAt }) => !this.#told.has(rank) && (endedAt ?? Number.POSITIVE_INFINITY) < at,
    );
  }

  get #urgent(): boolean {
    return this.options.urgent?.aborted ?? false;
  }

  #aborted(): void {
    const error: unknown = this.options.signal?.reason;
    this.fail({ code: "ERR_ABORTED", message: messageOf(error), error, echo: false });
  }

  #exited(worker: RankProcess, exit: WorkerExit): void {
    const { rank, endedAt: at = performance.now() } = worker;
    this.#told.add(rank);
    if (exit.kind === "lost") {
      this.#happenings.tell();
      return;
    }
    const how = describeExit(exit, (code) => this.options.doing?.(rank, code));
    this.options.log.logger.debug(`Rank ${rank} ${how}.`);
    this.#ends.push({ rank, how, at, ended: this.#ending });
    this.options.onExit?.(rank, exit);
    const finished = exit.kind === "code" && exit.code === 0 && this.options.mayEnd(rank);
    // What a process did after the launcher told it to end is no failure of its own.
    if (!finished && !this.#ending && !this.#failures.of(rank)) {
      const when = `${clock(at)} UTC, ${((at - this.#began) / 1000).toFixed(1)} s after the start`;
      const told = this.options.reasonOf?.(rank);
      // What another signal did is the rank's own; an abort is also how watchdogs end a rank that waits in vain.
      const maybeVictim = exit.kind === "code" || (exit.kind === "signal" && exit.signal === "SIGABRT");
      this.fail({
        ...{ rank, at, ...(exit.kind === "not started" ? {} : { when }) },
        echo: maybeVictim && soundsLikeVictim([...worker.stderrTail, told ?? ""]),
        ...failureOfExit(exit),
        message: `${this.nameOf(rank)} ${how}${reasonOfExit(worker, exit, this.#killsBefore, told)}.`,
      });
    }
    this.#happenings.tell();
  }

  async #end(cause: Failure | undefined, tell: (message: string) => Promise<void>): Promise<void> {
    const { log } = this.options;
    if (cause === undefined) {
      const gone = () => this.#urgent || this.#failures.some || this.#running().length === 0;
      await this.#happenings.until(gone, FAREWELL_MILLISECONDS);
      const slow = this.#running();
      if (slow.length > 0 && !this.#failures.some) {
        log.logger.warn(
          `${rankList(slow)} did not end within ${FAREWELL_MILLISECONDS / 1000} s of the result and had to be ended.`,
        );
      }
    }
    this.#ending = true;
    if (cause !== undefined) await tell(cause.message);
    const stuck = await endAll(this.#workers, this.#happenings, () => this.#urgent, this.#asking(cause));
    const left = this.#elsewhere?.end();
    const strays = await this.#local.killStrays();
    if (strays > 0) log.logger.debug(`What workers had started and left was killed: ${counted(strays, "process")}.`);
    for (const sentence of (await left) ?? []) log.logger.error(sentence);
    if (stuck.length > 0) {
      const ranks = rankList(stuck.map(({ rank }) => rank));
      log.logger.error(
        `${ranks} (process ${stuck.map(({ pid }) => pid).join(", ")}) did not end on SIGKILL, probably inside a driver, and had to be left behind.`,
      );
      return;
    }
    await Promise.all(this.#workers.map((worker) => worker.exited));
  }

  #asking(cause: Failure | undefined): Asking {
    const { milliseconds, forwards } = this.options.asking ?? {};
    const received = forwards && cause?.error instanceof DitrunError ? cause.error.signal : undefined;
    const signal = signals.find((name) => name === (cause?.asks ?? received));
    return { milliseconds, signal };
  }

  #running(): number[] {
    return this.#workers.filter((worker) => worker.running).map((worker) => worker.rank);
  }
}

/** A moment of performance.now() as the time of day. */
function clock(at: number): string {
  return new Date(performance.timeOrigin + at).toISOString().slice(11, 23);
}
