import type { FailureCode } from "../failure.js";

/** A reason to end the job. */
export interface Failure {
  readonly code: FailureCode;
  readonly message: string;
  /** Of the process, where it is not that of the code. */
  readonly exitCode?: number;
  /** That ended the rank. */
  readonly signal?: string;
  /** What to throw as it is, in place of an error made of all this. */
  readonly error?: unknown;
  /** What a rank says when it has lost its peers: it yields to any other reason. */
  readonly echo: boolean;
  readonly rank?: number;
  /** When it came about, by performance.now(), where that was before it was told of. */
  readonly at?: number | undefined;
  /** The same for people, where a process ended: `12:03:04.123 UTC, 4.2 s after the start`. */
  readonly when?: string;
  /** What the ranks are sent in place of SIGTERM. */
  readonly asks?: NodeJS.Signals;
  /** The message is to be followed by where each rank is. */
  readonly whereabouts?: boolean;
}

/** The reasons to end a job. */
export class Failures {
  readonly #all: (Failure & { readonly at: number })[] = [];

  add(failure: Failure): void {
    this.#all.push({ ...failure, at: failure.at ?? performance.now() });
  }

  get some(): boolean {
    return this.#all.length > 0;
  }

  /** Whether the rank has told of a reason, or is one. */
  of(rank: number): boolean {
    return this.#all.some((failure) => failure.rank === rank);
  }

  /** The cause is known for certain: something else than ranks that have lost their peers. */
  get certain(): boolean {
    return this.#all.some(({ echo }) => !echo);
  }

  /** Why the job must end: the first reason that is no echo, else the first echo. */
  get cause(): (Failure & { readonly at: number }) | undefined {
    const inOrder = this.#all.toSorted((a, b) => a.at - b.at);
    return inOrder.find(({ echo }) => !echo) ?? inOrder[0];
  }
}
