import { randomUUID } from "node:crypto";
import { availableParallelism, constants, hostname } from "node:os";
import { type Interrupt, interruptExitCode, learnSurroundings, listenForInterrupts } from "../cli/interrupts.js";
import { DitrunError, exitCodes, messageOf } from "../failure.js";
import { workerEntry } from "../paths.js";
import type { Job } from "../protocol/job.js";
import { killProcessesOfJob } from "../protocol/job-processes.js";
import { rendezvousVariables } from "../protocol/variables.js";
import { counted } from "../text.js";
import { endAll, SETTLE_MILLISECONDS } from "./ending.js";
import { type Failure, Failures } from "./first-cause.js";
import { Happenings } from "./happenings.js";
import type { Log } from "./logs.js";
import { outOfMemoryKills } from "./out-of-memory.js";
import { Rendezvous } from "./rendezvous/server.js";
import { checkRoom } from "./room.js";
import { harmless } from "./terminal-text.js";
import { rankList } from "./whereabouts.js";
import { type WorkerExit, WorkerProcess } from "./worker-process.js";

export interface JobOptions {
  job: Job;
  /** Number of workers, all on this host. */
  nproc: number;
  log: Log;
  /** The rendezvous's port on loopback; 0 for any free one. */
  port: number;
  /** The workers' program; the package's own worker by default. */
  entry?: string | undefined;
  /** Takes what ranks hand over while they work, one after the other. What it throws ends the job. */
  onEmit?: EmitHandler | undefined;
}

export type EmitHandler = (rank: number, name: string, value: Uint8Array) => Promise<void>;

/** What libzmq, libuv and OpenMP say before they abort where a thread cannot be had. */
const NO_THREAD = /Resource temporarily unavailable|uv_thread_create|[Tt]hread creation failed/;
/** How long a worker may take to end after its result. */
const FAREWELL_MILLISECONDS = 5000;

/**
 * Runs one job: starts its workers, waits for their results, and leaves no process behind, whatever happens.
 * @returns the results by rank.
 * @throws DitrunError saying what went wrong first, with that worker's exit code or 128 + its signal.
 */
export async function runJob(options: JobOptions): Promise<unknown[]> {
  const agent = new Agent(options);
  return agent.run();
}

class Agent {
  readonly #results = new Map<number, unknown>();
  readonly #failures = new Failures();
  readonly #happenings = new Happenings();
  readonly #workers: WorkerProcess[] = [];
  /** Of this run alone, in the environment of its workers and of all that they start. */
  readonly #mark = randomUUID();
  readonly #killsBefore = outOfMemoryKills() ?? 0;
  #emitting: Promise<void> = Promise.resolve();
  #handlerFailed = false;
  #ending = false;
  #urgent = false;

  constructor(private readonly options: JobOptions) {}

  async run(): Promise<unknown[]> {
    const { job, nproc, port, log } = this.options;
    checkRoom(nproc);
    const stopListening = listenForInterrupts((signal, count) => this.#interrupted(signal, count));
    try {
      const rendezvous = await Rendezvous.open(job, nproc, port, {
        result: (rank, value) => {
          this.#results.set(rank, value);
          this.#happenings.tell();
        },
        emitted: (rank, name, value) => this.#emitted(rank, name, value),
        failed: (rank, message, exitCode, cause) =>
          this.#fail({
            rank,
            exitCode,
            echo: cause === "peer",
            message: `${this.#nameOf(rank)} failed: ${harmless(message)}`,
          }),
        overdue: (message) => this.#fail({ message, exitCode: exitCodes.rendezvous, echo: false }),
        warning: (message) => log.logger.warn(message),
      });
      try {
        this.#start(rendezvous);
        // While the workers load.
        learnSurroundings();
        await this.#happenings.until(() => this.#failures.some || this.#finished());
        const cause = await this.#cause();
        await this.#end(rendezvous, cause);
        // A worker that crashed on its way out, after its result, still failed.
        const late = cause ?? this.#failures.cause;
        if (late) throw new DitrunError("ERR_RANK_FAILED", this.#report(late), { exitCode: late.exitCode });
      } finally {
        this.#ending = true;
        for (const worker of this.#workers) worker.signal("SIGKILL");
        rendezvous.close();
      }
    } finally {
      stopListening();
    }
    return Array.from({ length: nproc }, (_, rank) => this.#results.get(rank));
  }

  #start(rendezvous: Rendezvous): void {
    const { job, nproc, log, entry = workerEntry } = this.options;
    for (let rank = 0; rank < nproc && !this.#ending; rank++) {
      const environment = {
        ...workerEnvironment(rank, nproc, rendezvous, job, log.level),
        [rendezvousVariables.job]: this.#mark,
      };
      const worker = new WorkerProcess(rank, entry, environment, log.worker(job.id, rank));
      this.#workers.push(worker);
      log.logger.debug(`Rank ${rank} is process ${worker.pid}.`);
      void worker.exited.then((exit) => this.#exited(worker, exit));
    }
  }

  #exited(worker: WorkerProcess, exit: WorkerExit): void {
    const { rank } = worker;
    const reported = this.#results.has(rank);
    const how = describeExit(exit, reported);
    this.options.log.logger.debug(`Rank ${rank} ${how}.`);
    const finished = exit.kind === "code" && exit.code === 0 && reported;
    // What a worker did after the launcher told it to end is no failure of its own.
    if (!finished && !this.#ending && !this.#failures.of(rank)) {
      this.#fail({
        rank,
        echo: false,
        exitCode: exitCodeOf(exit),
        message: `${this.#nameOf(rank)} ${how}${this.#reasonOf(worker, exit)}.`,
      });
    }
    this.#happenings.tell();
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

  /** Never rejects: a failure of the handler ends the job, and nothing is handed to it any more. */
  #emitted(rank: number, name: string, value: Uint8Array): Promise<void> {
    this.#emitting = this.#emitting.then(async () => {
      if (this.#ending || this.#handlerFailed) return;
      try {
        await this.options.onEmit?.(rank, name, value);
      } catch (error) {
        this.#handlerFailed = true;
        const exitCode = error instanceof DitrunError ? error.exitCode : exitCodes.internal;
        this.#fail({ message: messageOf(error), exitCode, echo: false });
      }
    });
    return this.#emitting;
  }

  #fail(failure: Failure): void {
    this.options.log.logger.debug(`Failure: ${failure.message}`);
    this.#failures.add(failure);
    this.#happenings.tell();
  }

  #interrupted(signal: Interrupt, count: number): void {
    const exitCode = interruptExitCode(signal);
    if (count === 1) {
      this.#failures.add({ message: `The job was ended by ${signal}.`, exitCode, echo: false });
      this.options.log.logger.info(
        `${signal}: ending ${counted(this.#workers.length, "worker")}; a second one ends ${this.#workers.length === 1 ? "it" : "them"} at once.`,
      );
    } else {
      this.#urgent = true;
      this.options.log.logger.info(`${signal} again: killing the workers now.`);
    }
    this.#happenings.tell();
  }

  #finished(): boolean {
    return this.#results.size === this.options.nproc;
  }

  /** Why the job must end; undefined when it succeeded. After echoes their cause gets the time to show. */
  async #cause(): Promise<Failure | undefined> {
    if (!this.#failures.some) return undefined;
    await this.#happenings.until(() => this.#urgent || this.#failures.certain, SETTLE_MILLISECONDS);
    return this.#failures.cause;
  }

  async #end(rendezvous: Rendezvous, cause: Failure | undefined): Promise<void> {
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
    if (cause !== undefined) await rendezvous.abort(cause.message);
    const stuck = await endAll(this.#workers, this.#happenings, () => this.#urgent);
    // What left its worker's group, for a session of its own for instance, ends with the job all the same.
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

  #nameOf(rank: number): string {
    return `Rank ${rank} (${hostname()}, process ${this.#workers[rank]?.pid})`;
  }

  #report(cause: Failure): string {
    const tail = cause.rank === undefined ? [] : (this.#workers[cause.rank]?.stderrTail ?? []);
    if (tail.length === 0) return cause.message;
    return `${cause.message} Its last lines on stderr:\n${tail.map((line) => `  ${line}`).join("\n")}`;
  }
}

/** @param reported whether the rank had handed in its result. */
function describeExit(exit: WorkerExit, reported: boolean): string {
  if (exit.kind === "signal") return `was killed by ${exit.signal}`;
  if (exit.kind === "not started") return `could not be started: ${exit.reason}`;
  const when = reported ? " after its result" : exit.code === 0 ? " before it had reported a result" : "";
  return `exited with code ${exit.code}${when}`;
}

function exitCodeOf(exit: WorkerExit): number {
  if (exit.kind === "signal") return 128 + constants.signals[exit.signal];
  if (exit.kind === "not started") return exitCodes.environment;
  return exit.code === 0 ? exitCodes.worker : exit.code;
}

/** torchrun's variables, ditrun's keys, and thread counts that let all workers of a host share its cores. */
function workerEnvironment(
  rank: number,
  nproc: number,
  rendezvous: Rendezvous,
  job: Job,
  logLevel: string,
): Record<string, string> {
  const threads = Math.max(1, Math.floor(availableParallelism() / nproc));
  // Threads that wait must not spin: on a CPU the next worker needs the core.
  const { OMP_NUM_THREADS = String(threads), OMP_WAIT_POLICY = "passive" } = process.env;
  return {
    OMP_NUM_THREADS,
    OMP_WAIT_POLICY,
    RANK: String(rank),
    LOCAL_RANK: String(rank),
    WORLD_SIZE: String(nproc),
    LOCAL_WORLD_SIZE: String(nproc),
    MASTER_ADDR: rendezvous.address,
    MASTER_PORT: String(rendezvous.port),
    [rendezvousVariables.serverKey]: rendezvous.serverKey,
    [rendezvousVariables.publicKey]: rendezvous.clientKeys.publicKey,
    [rendezvousVariables.secretKey]: rendezvous.clientKeys.secretKey,
    [rendezvousVariables.timeoutSeconds]: String(job.timeoutSeconds),
    [rendezvousVariables.logLevel]: logLevel,
  };
}
