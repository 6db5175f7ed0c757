import { cut } from "./page.js";

/** Where a wait is shown. */
export interface WaitTarget {
  /** Says a line that stays. */
  info(line: string): void;
  /** Shows a line that is written again and again, or takes it away; absent where there is no terminal for it. */
  readonly status?: ((text: string | undefined) => void) | undefined;
  /** Columns of that terminal. */
  readonly columns?: (() => number) | undefined;
  /** Milliseconds, of a clock that only goes forward. */
  readonly now?: (() => number) | undefined;
}

/** How far a wait is. */
export interface Advance {
  readonly done: number;
  readonly total: number;
  /** What is counted and how fast: `step 3/50, 3.20 s/step`. */
  readonly text: string;
  /** Milliseconds until its end, where they can be told. */
  readonly leftMs?: number | undefined;
}

/** A wait that is over sooner shows nothing. */
const PATIENCE_MILLISECONDS = 500;
/** How often the line is written while nothing happens, so that its time runs. */
const TICK_MILLISECONDS = 500;
/** Where there is no terminal, a line no more often than this. */
const SPARSE_MILLISECONDS = 10_000;
const BAR = 20;
/** No longer, so that a terminal of 60 columns and more never breaks it in two, whatever its size becomes. */
const LONGEST = 59;

/** One wait at a time: a bar where it is known how far it is, else what is waited for and for how long. */
export class WaitLine {
  #began = 0;
  #said = 0;
  #what: string | undefined;
  #advance: Advance | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(private readonly target: WaitTarget) {}

  /** Something else is waited for now. @param what `loading the text encoder`. */
  begin(what: string): void {
    this.#what = what;
    this.#advance = undefined;
    this.#began = this.#now;
    this.#said = this.#now;
    if (this.target.status) this.#timer ??= setInterval(() => this.#draw(), TICK_MILLISECONDS).unref();
    // What was waited for before is over.
    this.target.status?.(undefined);
  }

  /** It has come further. Without a terminal this is a line, now and then. */
  advance(advance: Advance): void {
    this.#advance = advance;
    if (this.#what === undefined) this.begin("");
    this.#advance = advance;
    this.#draw();
    if (this.target.status || this.#now - this.#said < SPARSE_MILLISECONDS || advance.done === advance.total) return;
    this.#said = this.#now;
    const { text } = advance;
    this.target.info(`${text.charAt(0).toUpperCase()}${text.slice(1)}${timeLeft(advance)}.`);
  }

  /** Nothing is waited for any more; the terminal's line is empty. */
  end(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#what = undefined;
    this.#advance = undefined;
    this.target.status?.(undefined);
  }

  /** Since what is waited for now began. */
  get elapsedMs(): number {
    return this.#now - this.#began;
  }

  get #now(): number {
    return (this.target.now ?? performance.now.bind(performance))();
  }

  #draw(): void {
    const elapsed = this.elapsedMs;
    if (elapsed < PATIENCE_MILLISECONDS || !this.target.status) return;
    const most = Math.min(LONGEST, (this.target.columns?.() ?? 80) - 1);
    this.target.status(cut(this.#text(elapsed), most));
  }

  #text(elapsed: number): string {
    const advance = this.#advance;
    if (!advance) return `${this.#what}, ${duration(Math.floor(elapsed / 1e3))}`;
    const { done, total, text } = advance;
    const full = total === 0 ? 0 : Math.round((BAR * Math.min(done, total)) / total);
    return `[${"=".repeat(full)}${" ".repeat(BAR - full)}] ${text}${timeLeft(advance)}`;
  }
}

/** Of less than a second nobody need know. */
function timeLeft({ leftMs = 0 }: Advance): string {
  const seconds = Math.round(leftMs / 1e3);
  return seconds < 1 ? "" : `, ${duration(seconds)} left`;
}

/** `48 s`, `12 min 5 s`, `1 h 3 min`. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}
