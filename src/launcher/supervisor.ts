import { randomUUID } from "node:crypto";
import { constants, hostname } from "node:os";
import { DitrunError, exitCodes, messageOf } from "../failure.js";
import { killProcessesOfJob } from "../protocol/job-processes.js";
import { rendezvousVariables } from "../protocol/variables.js";
import { counted } from "../text.js";
import { endAll, SETTLE_MILLISECONDS } from "./ending.js";
import { type Failure, Failures } from "./first-cause.js";
import { Happenings } from "./happenings.js";
import type { Log } from "./logs.js";
import { outOfMemoryKills } from "./out-of-memory.js";
import { checkRoom } from "./room.js";
import { rankList } from "./whereabouts.js";
import { type Program, type WorkerExit, WorkerProcess } from "./worker-process.js";

export interface SupervisorOptions {
  /** Names the log files of its ranks. */
  readonly id: string;
  /** Number of processes, all on this host. */
  readonly nproc: number;
  readonly log: Log;
  /** Ends everything; its reason is the failure to report, a DitrunError. */
  readonly signal?: AbortSignal | undefined;
  /** After that: nobody waits for processes to end by themselves any more. */
  readonly urgent?: AbortSignal | undefined;
  /** Whether the rank has done all that it was started for, so that its exit with code 0 is right. */
  readonly mayEnd: (rank: number) => boolean;
  /** What the rank was doing, as the end of a sentence: `before it had reported a result`. */
  readonly doing?: (rank: number) => string;
}

/** What libzmq, libuv and OpenMP say before they abort where a thread cannot be had. */
const NO_THREAD = /Resource temporarily unavailable|uv_thread_create|[Tt]hread creation failed/;
/** How long a process may take to end once its work is done. */
const FAREWELL_MILLISECONDS = 5000;

/**
 * The processes of one launch on this host: starts them, watches them, finds the first cause where something fails, and
 * leaves no process behind, whatever happens.
 */
export class Supervisor {
  readonly #failures = new Failures();
  readonly #happenings = new Happenings();
  readonly #workers: WorkerProcess[] = [];
  /** Of this launch alone, in the environment of its processes and of all that they start. */
  readonly #mark = randomUUID();
  readonly #killsBefore = outOfMemoryKills() ?? 0;
  #ending = false;
  readonly #onAbort = () => this.#aborted();
  readonly #onUrgent = () => this.#happenings.tell();

  constructor(private readonly options: SupervisorOptions) {
    checkRoom(options.nproc);
    options.signal?.addEventListener("abort", this.#onAbort);
    options.urgent?.addEventListener("abort", this.#onUrgent);
    if (options.signal?.aborted) this.#aborted();
  }

  /** Starts a process for each rank. */
  start(program: (rank: number) => Program): void {
    const { id, nproc, log } = this.options;
    for (let rank = 0; rank < nproc && !this.#ending; rank++) {
      const { command, environment } = program(rank);
      const marked = { command, environment: { ...environment, [rendezvousVariables.job]: this.#mark } };
      const worker = new WorkerProcess(rank, marked, log.worker(id, rank));
      this.#workers.push(worker);
      log.logger.debug(`Rank ${rank} is process ${worker.pid}.`);
      void worker.exited.then((exit) => this.#exited(worker, exit));
    }
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
    await this.#happenings.until(() => this.#urgent || this.#failures.certain, SETTLE_MILLISECONDS);
    return this.#failures.cause;
  }

  /**
   * Ends the launch. Without a cause the processes are given the time to end by themselves first.
   * @param tell lets the ranks know that all is over, and why.
   * @throws DitrunError saying what went wrong first, with that process's exit code or 128 + its signal.
   */
  async end(cause: Failure | undefined, tell: (message: string) => Promise<void>): Promise<void> {
    try {
      await this.#end(cause, tell);
      // One that crashed on its way out, after its work, still failed.
      const late = cause ?? this.#failures.cause;
      if (late) throw this.errorOf(late);
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
    return `Rank ${rank} (${hostname()}, process ${this.#workers[rank]?.pid})`;
  }

  /** The failure as an error, with the last lines of the rank that it is about. */
  errorOf(cause: Failure): DitrunError {
    const tail = cause.rank === undefined ? [] : (this.#workers[cause.rank]?.stderrTail ?? []);
    const lines = tail.length === 0 ? "" : ` Its last lines on stderr:\n${tail.map((line) => `  ${line}`).join("\n")}`;
    return new DitrunError("ERR_RANK_FAILED", `${cause.message}${lines}`, { exitCode: cause.exitCode });
  }

  get #urgent(): boolean {
    return this.options.urgent?.aborted ?? false;
  }

  #aborted(): void {
    const reason: unknown = this.options.signal?.reason;
    const exitCode = reason instanceof DitrunError ? reason.exitCode : exitCodes.internal;
    this.fail({ message: messageOf(reason), exitCode, echo: false });
  }

  #exited(worker: WorkerProcess, exit: WorkerExit): void {
    const { rank } = worker;
    const how = this.#describe(rank, exit);
    this.options.log.logger.debug(`Rank ${rank} ${how}.`);
    const finished = exit.kind === "code" && exit.code === 0 && this.options.mayEnd(rank);
    // What a process did after the launcher told it to end is no failure of its own.
    if (!finished && !this.#ending && !this.#failures.of(rank)) {
      this.fail({
        rank,
        echo: false,
        exitCode: exitCodeOf(exit),
        message: `${this.nameOf(rank)} ${how}${this.#reasonOf(worker, exit)}.`,
      });
    }
    this.#happenings.tell();
  }

  #describe(rank: number, exit: WorkerExit): string {
    if (exit.kind === "signal") return `was killed by ${exit.signal}`;
    if (exit.kind === "not started") return `could not be started: ${exit.reason}`;
    const { mayEnd, doing } = this.options;
    const when = mayEnd(rank) ? "after its result" : exit.code === 0 ? doing?.(rank) : undefined;
    return `exited with code ${exit.code}${when === undefined ? "" : ` ${when}`}`;
  }

  /** What a signal alone does not say, as the end of a sentence. */
  #reasonOf({ stderrTail }: WorkerProcess, exit: WorkerExit): string {
    if (exit.kind !== "signal") return "";
    // Nobody says whom the kernel killed for want of memory, but it counts them.
    if (exit.signal === "SIGKILL" && (outOfMemoryKills() ?? 0) > this.#killsBefore) {
      return ", probably because memory ran out: the kernel has just killed a process for that";
    }
    if (exit.signal === "SIGABRT" && stderrTail.some((line) => NO_THREAD.test(line))) {
      return ", since no more threads can be made: raise ulimit -u, or the pids limit of the container";
    }
    return "";
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
    const stuck = await endAll(this.#workers, this.#happenings, () => this.#urgent);
    // What left its worker's group, for a session of its own for instance, ends with the launch all the same.
    const strays = killProcessesOfJob(this.#mark);
    if (strays > 0) log.logger.debug(`What workers had started and left was killed: ${counted(strays, "process")}.`);
    if (stuck.length > 0) {
      const ranks = rankList(stuck.map(({ rank }) => rank));
      log.logger.error(
        `${ranks} (process ${stuck.map(({ pid }) => pid).join(", ")}) did not end on SIGKILL, probably inside a driver, and had to be left behind.`,
      );
      return;
    }
    await Promise.all(this.#workers.map((worker) => worker.exited));
  }

  #running(): number[] {
    return this.#workers.filter((worker) => worker.running).map((worker) => worker.rank);
  }
}

function exitCodeOf(exit: WorkerExit): number {
  if (exit.kind === "signal") return 128 + constants.signals[exit.signal];
  if (exit.kind === "not started") return exitCodes.environment;
  return exit.code === 0 ? exitCodes.worker : exit.code;
}
