import { execa } from "execa";
import { readLines } from "./lines.js";
import type { WorkerLog } from "./logs.js";

/** How a worker's process ended. */
export type WorkerExit =
  | { kind: "code"; code: number }
  | { kind: "signal"; signal: NodeJS.Signals }
  | { kind: "not started"; reason: string };

const TAIL_LINES = 12;
/** A grandchild that left the worker's group may hold its pipes open; they are not waited for longer than this. */
const DRAIN_MILLISECONDS = 500;

/** One worker: a process in a group of its own, whose output goes to a log line by line. */
export class WorkerProcess {
  readonly pid: number | undefined;
  /** Resolves once the process has ended, its group has been killed and its output has been read. */
  readonly exited: Promise<WorkerExit>;
  #running = true;
  readonly #tail: string[] = [];
  readonly #process: ReturnType<typeof startNode>;

  constructor(
    readonly rank: number,
    entry: string,
    environment: Record<string, string>,
    log: WorkerLog,
  ) {
    this.#process = startNode(entry, environment);
    this.pid = this.#process.pid;
    const { stdout, stderr } = this.#process;
    if (stdout) readLines(stdout, (line) => log.line("stdout", line));
    if (stderr) {
      readLines(stderr, (line) => {
        log.line("stderr", line);
        this.#tail.push(line);
        if (this.#tail.length > TAIL_LINES) this.#tail.shift();
      });
    }
    this.exited = this.#untilExit().finally(() => log.close());
  }

  get running(): boolean {
    return this.#running;
  }

  /** The last lines of its stderr. */
  get stderrTail(): readonly string[] {
    return this.#tail;
  }

  /** Signals the whole group, if the worker still runs. */
  signal(signal: NodeJS.Signals): void {
    if (this.#running) signalGroup(this.pid, signal);
  }

  async #untilExit(): Promise<WorkerExit> {
    const exit = await new Promise<WorkerExit>((resolve) => {
      this.#process.once("error", (error) => {
        if (this.pid === undefined) resolve({ kind: "not started", reason: error.message });
      });
      this.#process.once("exit", (code, signal) => {
        resolve(signal === null ? { kind: "code", code: code ?? 0 } : { kind: "signal", signal });
      });
    });
    this.#running = false;
    // Nothing that a worker started outlives it. Its group's id cannot have been given away yet while members live.
    signalGroup(this.pid, "SIGKILL");
    await this.#drained();
    return exit;
  }

  async #drained(): Promise<void> {
    const streams = [this.#process.stdout, this.#process.stderr].filter(
      (stream) => stream !== null && stream !== undefined,
    );
    const closed = streams.map((stream) =>
      stream.closed ? undefined : new Promise<void>((resolve) => stream.once("close", () => resolve())),
    );
    let deadline: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      deadline = setTimeout(resolve, DRAIN_MILLISECONDS);
    });
    await Promise.race([Promise.all(closed), patience]);
    clearTimeout(deadline);
    for (const stream of streams) stream.destroy();
    this.#process.stdin?.destroy();
  }
}

function startNode(entry: string, environment: Record<string, string>) {
  return execa(process.execPath, [entry], {
    env: environment,
    detached: true,
    cleanup: false,
    reject: false,
    buffer: false,
    // stdin stays open and unused: its end tells the worker that the launcher is gone.
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  });
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // ESRCH: the group has no members left, which is what was wanted.
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}
