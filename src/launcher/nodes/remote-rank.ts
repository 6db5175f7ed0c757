import type { RankProcess, WorkerExit } from "../worker-process.js";

/** A rank's process on another host, as that host's launcher tells of it. */
export class RemoteRank implements RankProcess {
  readonly exited: Promise<WorkerExit>;
  pid: number | undefined;
  #end: (exit: WorkerExit) => void = () => undefined;
  #endedAt: number | undefined;
  #told = false;
  #lines: readonly string[] = [];

  /** @param send passes a signal on to that launcher. */
  constructor(
    readonly rank: number,
    readonly host: string,
    private readonly send: (signal: "SIGTERM" | "SIGKILL") => void,
  ) {
    this.exited = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  get running(): boolean {
    return this.#endedAt === undefined;
  }

  get endedAt(): number | undefined {
    return this.#endedAt;
  }

  get stderrTail(): readonly string[] {
    return this.#lines;
  }

  signal(signal: "SIGTERM" | "SIGKILL"): void {
    if (this.running) this.send(signal);
  }

  /** It has ended; how is still to be told. @param at by performance.now(). */
  died(at: number): void {
    this.#endedAt ??= at;
  }

  /** It has ended. @param at by performance.now(). @param lines the last of its stderr. */
  ended(exit: WorkerExit, at = performance.now(), lines: readonly string[] = []): void {
    if (this.#told) return;
    this.#told = true;
    this.#endedAt ??= at;
    this.#lines = lines;
    this.#end(exit);
  }
}
