import type { RankProcess, WorkerExit } from "../worker-process.js";

/** A rank's process on another host, as that host's launcher tells of it. */
export class RemoteRank implements RankProcess {
  readonly exited: Promise<WorkerExit>;
  pid: number | undefined;
  #end: (exit: WorkerExit) => void = () => undefined;
  #endedAt: number | undefined;
  #told = false;
  #lines: readonly string[] = [];
  #exception: string | undefined;
  #place: string | undefined;

  /** @param send passes a signal on to that launcher. */
  constructor(
    readonly rank: number,
    readonly host: string,
    private readonly send: (signal: NodeJS.Signals) => void,
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

  get exception(): string | undefined {
    return this.#exception;
  }

  get place(): string | undefined {
    return this.#place;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.running) this.send(signal);
  }

  /** It has ended; how is still to be told. @param at by performance.now(). */
  died(at: number): void {
    this.#endedAt ??= at;
  }

  /** What it said of its end, to be told before that. */
  said(exception: string | undefined, place: string | undefined): void {
    this.#exception = exception;
    this.#place = place;
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
