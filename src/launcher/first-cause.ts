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

type Known = Failure & { readonly at: number };

/** The reasons to end a job. Each costs the same, however many ranks have told of one. */
export class Failures {
  readonly #ranks = new Set<number>();
  /** The earliest that is no echo, and the earliest echo. */
  #own: Known | undefined;
  #echo: Known | undefined;

  add(failure: Failure): void {
    const known: Known = { ...failure, at: failure.at ?? performance.now() };
    if (known.rank !== undefined) this.#ranks.add(known.rank);
    if (known.echo) this.#echo = earlier(this.#echo, known);
    else this.#own = earlier(this.#own, known);
  }

  get some(): boolean {
    return this.cause !== undefined;
  }

  /** Whether the rank has told of a reason, or is one. */
  of(rank: number): boolean {
    return this.#ranks.has(rank);
  }

  /** The cause is known for certain: something else than ranks that have lost their peers. */
  get certain(): boolean {
    return this.#own !== undefined;
  }

  /** Why the job must end: the first reason that is no echo, else the first echo. */
  get cause(): Known | undefined {
    return this.#own ?? this.#echo;
  }
}

/** Of two that came at the same time, the one that was told first. */
function earlier(known: Known | undefined, other: Known): Known {
  return known === undefined || other.at < known.at ? other : known;
}
