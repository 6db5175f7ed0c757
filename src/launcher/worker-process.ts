import { type ChildProcess, spawn } from "node:child_process";
import { hostname } from "node:os";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { fileFailure } from "../files/file-failure.js";
import { ownEnvironment } from "./cluster/own-environment.js";
import type { Endable } from "./ending.js";
import { LastLines } from "./last-lines.js";
import { LineReader } from "./lines.js";
import type { WorkerLog } from "./logs.js";

/** How a worker's process ended. */
export type WorkerExit =
  /** Nobody can tell: its host is gone. */
  | { kind: "lost" }
  | { kind: "code"; code: number }
  | { kind: "signal"; signal: NodeJS.Signals }
  | { kind: "not started"; reason: string };

/** What a rank is: a program with its arguments, and what is added to the launcher's own environment for it. */
export interface Program {
  readonly command: readonly [program: string, ...arguments_: string[]];
  readonly environment: Readonly<Record<string, string>>;
  /** What it reads from stdin: nothing at all; or it waits there, so that the end of stdin tells that the launcher is gone. */
  readonly stdin: "empty" | "open";
}

/** A grandchild that left the worker's group may hold its pipes open: what comes no more for so long has been read. */
const QUIET_MILLISECONDS = 100;
/** It may also write for ever. A pipe holds 64 KiB, and one piece of text is up to as long. */
const MOST_PIECES_AFTER_EXIT = 256;
/** Whoever reads the launcher's output may hold up what a worker left, but not for longer than this. */
const HURRY_MILLISECONDS = 1000;

/** A rank's process, on this host or another. */
export interface RankProcess extends Endable {
  readonly rank: number;
  readonly host: string;
  readonly pid: number | undefined;
  /** The last lines of its stderr, as they may be shown. */
  readonly stderrTail: readonly string[];
  /** When it ended, by performance.now() of this host; some milliseconds late for one of another. */
  readonly endedAt: number | undefined;
  /** The exception that ended a Python program, as it may be shown. */
  readonly exception?: string | undefined;
  /** Where a Python program was when a fatal signal met it, as it may be shown. */
  readonly place?: string | undefined;
  /** Where its lines are kept, by stream, on this host. */
  readonly files?: WorkerLog["files"] | undefined;
  /** Resolves once the process has ended, its group has been killed and its output has been read. */
  readonly exited: Promise<WorkerExit>;
}

/** One worker: a process in a group of its own, whose output goes to a log line by line. */
export class WorkerProcess implements RankProcess {
  readonly host = hostname();
  readonly pid: number | undefined;
  readonly exited: Promise<WorkerExit>;
  /** Resolves as soon as the process has ended. */
  readonly died: Promise<void>;
  #tellDeath = () => {};
  #endedAt: number | undefined;
  readonly #tail = new LastLines();
  readonly #readers: LineReader[] = [];
  readonly #process: ChildProcess | undefined;

  constructor(
    readonly rank: number,
    program: Program,
    private readonly log: WorkerLog,
  ) {
    const started = startProgram(program);
    this.#process = started instanceof Error ? undefined : started;
    this.pid = this.#process?.pid;
    const { stdout, stderr } = this.#process ?? {};
    if (stdout) this.#readers.push(new LineReader(stdout, (lines) => log.lines("stdout", lines)));
    if (stderr) {
      const take = (lines: readonly string[]) => {
        this.#tail.add(lines);
        return log.lines("stderr", lines);
      };
      this.#readers.push(new LineReader(stderr, take));
    }
    this.died = new Promise((resolve) => {
      this.#tellDeath = resolve;
    });
    const ended =
      started instanceof Error ? Promise.resolve(notStarted(program, started)) : untilExit(started, program);
    this.exited = this.#untilRead(ended).finally(() => log.close());
  }

  get files(): WorkerLog["files"] {
    return this.log.files;
  }

  get running(): boolean {
    return this.#endedAt === undefined;
  }

  get endedAt(): number | undefined {
    return this.#endedAt;
  }

  get exception(): string | undefined {
    return this.#tail.exception;
  }

  get place(): string | undefined {
    return this.#tail.place;
  }

  get stderrTail(): readonly string[] {
    return this.#tail.shown;
  }

  /** Signals the whole group, if the worker still runs; SIGABRT, to which Python tells its stack, the worker alone. */
  signal(signal: NodeJS.Signals): void {
    if (this.running) signalGroup(this.pid, signal, signal === "SIGABRT");
  }

  async #untilRead(ended: Promise<WorkerExit>): Promise<WorkerExit> {
    const exit = await ended;
    this.#endedAt = performance.now();
    this.#tellDeath();
    // Nothing that a worker started outlives it. Its group's id cannot have been given away yet while members live.
    signalGroup(this.pid, "SIGKILL");
    await this.#drained();
    return exit;
  }

  /** Resolves when all that the worker wrote has been read, however busy the launcher is. */
  async #drained(): Promise<void> {
    const read = () => this.#readers.reduce((sum, { pieces }) => sum + pieces, 0);
    const before = read();
    const waits = () => this.#readers.some(({ waiting }) => waiting);
    const hurry = setTimeout(() => {
      for (const reader of this.#readers) reader.hurry();
    }, HURRY_MILLISECONDS);
    let lately = -1;
    while (
      !this.#readers.every(({ closed }) => closed) &&
      (waits() || read() !== lately) &&
      read() - before < MOST_PIECES_AFTER_EXIT
    ) {
      lately = read();
      await this.#closedWithin(QUIET_MILLISECONDS);
      // What lies in the pipes is read in the turn after this one.
      await nextTurn();
    }
    clearTimeout(hurry);
    for (const reader of this.#readers) reader.finish();
    this.#process?.stdin?.destroy();
  }

  async #closedWithin(milliseconds: number): Promise<void> {
    const over = new AbortController();
    const streams = [this.#process?.stdout, this.#process?.stderr];
    const closed = streams.map((stream) =>
      stream === null || stream === undefined || stream.closed
        ? undefined
        : new Promise<void>((resolve) => stream.once("close", () => resolve())),
    );
    const patience = sleep(milliseconds, undefined, { signal: over.signal }).catch(() => undefined);
    await Promise.race([Promise.all(closed), patience]);
    over.abort();
  }
}

function untilExit(child: ChildProcess, program: Program): Promise<WorkerExit> {
  return new Promise((resolve) => {
    child.on("error", (error) => {
      if (child.pid === undefined) resolve(notStarted(program, error));
    });
    child.once("exit", (code, signal) => {
      resolve(signal === null ? { kind: "code", code: code ?? 0 } : { kind: "signal", signal });
    });
  });
}

function notStarted({ command: [file] }: Program, error: Error): WorkerExit {
  return { kind: "not started", reason: `${file}: ${fileFailure(error)}` };
}

/** @returns the error of a program that cannot even be tried, because of too many arguments for instance. */
function startProgram({ command: [file, ...given], environment, stdin }: Program): ChildProcess | Error {
  try {
    return spawn(file, given, {
      env: { ...ownEnvironment(), ...environment },
      detached: true,
      stdio: [stdin === "open" ? "pipe" : "ignore", "pipe", "pipe"],
    });
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals, alone = false): void {
  if (pid === undefined) return;
  try {
    process.kill(alone ? pid : -pid, signal);
  } catch (error) {
    // ESRCH: the group has no members left, which is what was wanted.
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}
