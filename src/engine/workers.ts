import { asDitrunError, DitrunError, messageOf } from "../failure.js";
import { reachable } from "../launcher/cluster/addresses.js";
import type { Log } from "../launcher/logs.js";
import { Rendezvous } from "../launcher/rendezvous/server.js";
import { Supervisor } from "../launcher/supervisor.js";
import { harmless } from "../launcher/terminal-text.js";
import { workerEntry } from "../paths.js";
import { hostOfRanks, hostRunsOf } from "../protocol/host-runs.js";
import type { Job, Settings, Task } from "../protocol/job.js";
import type { Hosts } from "./hosts.js";
import { type WorkerDetail, workerProgram } from "./worker-program.js";

export interface WorkersOptions {
  readonly settings: Settings;
  /** Number of workers, all on this host unless others are given. */
  readonly nproc: number;
  /** Other hosts, whose launchers this one leads. */
  readonly hosts?: Hosts | undefined;
  readonly log: Log;
  /** The rendezvous's port on loopback; 0 for any free one. */
  readonly port: number;
  /** The workers' program; the package's own worker by default. */
  readonly entry?: string | undefined;
  /** Ends the workers; its reason, a DitrunError, is what every run is rejected with. */
  readonly signal?: AbortSignal | undefined;
  /** After that: nobody waits for workers to end by themselves any more. */
  readonly urgent?: AbortSignal | undefined;
}

/** Takes what ranks hand over while they work, one after the other. What it throws ends the request. */
export type EmitHandler = (rank: number, name: string, value: Uint8Array) => Promise<void>;

export interface RunOptions {
  readonly onEmit?: EmitHandler | undefined;
  /** Ends the task before its next step on every rank; its reason is what the run is rejected with. */
  readonly signal?: AbortSignal | undefined;
  /** Asked once for each step, before it begins: whether what it leaves is to be handed over. */
  readonly wantsPreview?: (() => boolean) | undefined;
}

/** Workers that join once and then serve task after task, until they are told to end or one of them fails. */
export class Workers {
  readonly #supervisor: Supervisor;
  readonly #rendezvous: Rendezvous;
  /** The tasks before have ended. */
  #turn: Promise<void> = Promise.resolve();
  /** Of the task at hand. */
  #emitting: Promise<void> = Promise.resolve();
  #onEmit: EmitHandler | undefined;
  #handlerFailure: { readonly error: unknown } | undefined;
  #closing = false;
  /** Whether a run was rejected with what ended the workers. */
  #told = false;
  /** Set once all is over: the workers have ended, or are being ended. */
  #ended: Promise<DitrunError | undefined> | undefined;

  private constructor(supervisor: Supervisor, rendezvous: Rendezvous) {
    this.#supervisor = supervisor;
    this.#rendezvous = rendezvous;
  }

  /** Starts the workers. They join by themselves; a run waits for them. @throws DitrunError where the port or the room for them is not to be had. */
  static async start(options: WorkersOptions): Promise<Workers> {
    const { settings: own, nproc, hosts, log, port, signal, urgent, entry = workerEntry } = options;
    const perNode = hosts?.place(nproc) ?? [nproc];
    const settings: Settings = hosts === undefined ? own : { ...own, hosts: hostRunsOf(perNode) };
    const nodes = hostOfRanks(hostRunsOf(perNode));
    const [here = nproc] = perNode;
    const signals = [signal, hosts?.leader.broken].filter((each) => each !== undefined);
    // Known before anything can fail, since whoever fails tells the workers.
    let workers: Workers | undefined;
    const supervisor = new Supervisor({
      ...{ id: settings.id, nproc: here, log, signal: AbortSignal.any(signals), urgent },
      // Every host has a launcher, and every rank joins here.
      connections: perNode.length - 1 + nproc - here,
      mayEnd: () => workers?.mayEnd ?? false,
      doing: (rank, code) => {
        if (workers?.mayEnd) return "after its result";
        if (code !== 0) return undefined;
        return workers?.owes(rank) ? "before it had reported a result" : "while it waited for a request";
      },
    });
    try {
      const { timeoutSeconds } = settings;
      const welcome = (rank: number) =>
        new TextEncoder().encode(JSON.stringify(hosts?.of(settings, nodes[rank] ?? 0) ?? settings));
      const address = hosts?.leader.address;
      const rendezvous = await Rendezvous.open(
        // The port that was asked for is where launchers meet, if there are several.
        { size: nproc, address, port: hosts === undefined ? port : 0, timeoutSeconds, welcome },
        {
          emitted: async (rank, name, value) => workers?.emitted(rank, name, value),
          fault: (rank, message) => `${supervisor.nameOf(rank)} failed: ${harmless(message)}`,
          failed: (rank, { code, message, exitCode }, cause) =>
            supervisor.fail({
              ...{ code, rank, exitCode, echo: cause === "peer" },
              message: `${supervisor.nameOf(rank)} failed: ${harmless(message)}`,
            }),
          overdue: (message) => supervisor.fail({ code: "ERR_RENDEZVOUS", message, echo: false }),
          warning: (message) => log.logger.warn(message),
        },
      );
      workers = new Workers(supervisor, rendezvous);
      const keys = { ...rendezvous.clientKeys, serverKey: rendezvous.serverKey };
      const told: WorkerDetail = { ...keys, timeoutSeconds, logLevel: log.level };
      await supervisor.start(
        (rank) => {
          const place = { rank, size: nproc, localRank: rank, localSize: here };
          const own = hosts?.leader.ownAddress;
          const met = { address: own ?? reachable(rendezvous.address), port: rendezvous.port };
          return workerProgram({ ...place, ...met }, told, own, entry);
        },
        hosts?.leader.prepare({ id: settings.id, perNode, port: rendezvous.port, detail: JSON.stringify(told) }),
      );
      void workers.#watch();
      return workers;
    } catch (error) {
      supervisor.release();
      throw error;
    }
  }

  /** Resolves once all workers have ended, with the reason where they did not do so on demand. */
  get ended(): Promise<DitrunError | undefined> {
    return this.#watch();
  }

  private get mayEnd(): boolean {
    return this.#closing;
  }

  private owes(rank: number): boolean {
    return this.#rendezvous.joined <= rank || this.#rendezvous.owes(rank);
  }

  /**
   * Runs a task on every rank, after those before it.
   * @returns results by rank.
   * @throws DitrunError: the task's own failure, after which others can be run, or what ended the workers. Or the signal's reason.
   */
  async run(task: Task, options: RunOptions = {}): Promise<unknown[]> {
    const before = this.#turn;
    let over = () => {};
    this.#turn = new Promise((resolve) => {
      over = resolve;
    });
    await this.#turnOf(before, options.signal, over);
    try {
      return await this.#run(task, options);
    } finally {
      over();
    }
  }

  /** Waits for the tasks before; one that is called off meanwhile need not. */
  async #turnOf(before: Promise<void>, signal: AbortSignal | undefined, over: () => void): Promise<void> {
    if (!signal) return before;
    let stop = () => {};
    const called = new Promise<void>((resolve) => {
      stop = resolve;
      signal.addEventListener("abort", stop);
    });
    if (!signal.aborted) await Promise.race([before, called]);
    signal.removeEventListener("abort", stop);
    if (!signal.aborted) return;
    void before.then(over);
    signal.throwIfAborted();
  }

  async #run(task: Task, { onEmit, signal, wantsPreview }: RunOptions): Promise<unknown[]> {
    signal?.throwIfAborted();
    if (this.#closing) throw new DitrunError("ERR_CLOSED", "The workers have been told to end.");
    this.#onEmit = onEmit;
    this.#handlerFailure = undefined;
    const onAbort = () => this.#rendezvous.stop({ code: "ERR_ABORTED", message: messageOf(signal?.reason) });
    signal?.addEventListener("abort", onAbort);
    try {
      const outcome = await Promise.race([
        this.#rendezvous.hand(new TextEncoder().encode(JSON.stringify(task)), wantsPreview),
        this.#watch().then((error) => ({ kind: "ended" as const, error })),
      ]);
      if (outcome.kind === "ended") {
        this.#told = true;
        throw outcome.error ?? new DitrunError("ERR_CLOSED", "The workers have been told to end.");
      }
      await this.#emitting;
      this.#throwHandlerFailure();
      if (outcome.kind === "results") {
        return outcome.results.map((result): unknown => JSON.parse(new TextDecoder().decode(result)));
      }
      if (signal?.aborted && outcome.stop.rank === undefined) throw signal.reason;
      const { code, message, exitCode, rank } = outcome.stop;
      const host = rank === undefined ? undefined : this.#supervisor.hostOf(rank);
      throw new DitrunError(code, message, { exitCode, rank, host });
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#onEmit = undefined;
    }
  }

  /** Asks all workers for a sign of life. @returns the ranks that have given none in time; none once the workers have ended. */
  silentRanks(milliseconds: number): Promise<readonly number[]> {
    return this.#rendezvous.silentRanks(milliseconds);
  }

  /** Lets the workers end, and waits for that. @throws DitrunError where one of them fails on its way out, or failed before and no run told of it. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#rendezvous.end();
    this.#supervisor.tell();
    const error = await this.#watch();
    if (error && !this.#told) throw error;
  }

  #throwHandlerFailure(): void {
    if (this.#handlerFailure) throw this.#handlerFailure.error;
  }

  /** Resolves once the workers have ended, with the reason if there was one. */
  #watch(): Promise<DitrunError | undefined> {
    this.#ended ??= this.#untilEnd().catch((error: unknown) => asDitrunError(error));
    return this.#ended;
  }

  async #untilEnd(): Promise<undefined> {
    try {
      const cause = await this.#supervisor.until(() => this.#closing);
      await this.#supervisor.end(cause, (message) => this.#rendezvous.abort(message));
    } finally {
      this.#closing = true;
      this.#supervisor.release();
      this.#rendezvous.close();
    }
    return undefined;
  }

  /** Never rejects: a failure of the handler stops the task, and nothing more of it is handed on. */
  private emitted(rank: number, name: string, value: Uint8Array): Promise<void> {
    const onEmit = this.#onEmit;
    this.#emitting = this.#emitting.then(async () => {
      if (onEmit === undefined || onEmit !== this.#onEmit || this.#handlerFailure || this.#supervisor.failing) return;
      try {
        await onEmit(rank, name, value);
      } catch (error) {
        this.#handlerFailure = { error };
        this.#rendezvous.stop({ code: "ERR_ABORTED", message: messageOf(error) });
      }
    });
    return this.#emitting;
  }
}

export interface JobOptions extends Omit<WorkersOptions, "settings"> {
  readonly job: Job;
  readonly onEmit?: EmitHandler | undefined;
}

/**
 * Runs one task on workers of its own, and leaves no process behind, whatever happens.
 * @returns the results by rank.
 * @throws DitrunError saying what went wrong first, with that worker's exit code or 128 + its signal.
 */
export async function runJob({ job, onEmit, ...options }: JobOptions): Promise<unknown[]> {
  const { task, ...settings } = job;
  const workers = await Workers.start({ ...options, settings });
  let results: unknown[];
  try {
    results = await workers.run(task, { onEmit });
  } catch (error) {
    // What a worker does on its way out matters less than why.
    await workers.close().catch(() => undefined);
    throw error;
  }
  await workers.close();
  return results;
}
