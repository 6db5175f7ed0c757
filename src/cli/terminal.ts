import { type Page, pageOf } from "../views/page.js";

const ERASE = "\r\x1b[K";

/** stderr, as far as it is needed here. */
export interface TerminalStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly writableLength: number;
  write(text: string): boolean;
  hasColors?(): boolean;
  on(event: "resize", listener: () => void): unknown;
}

/**
 * stderr as people see it: lines, and on a terminal below them one line that shows what is waited for. Lines that are written
 * meanwhile push it down.
 */
export class Terminal {
  #status: string | undefined;
  #quiet = false;

  constructor(private readonly stream: TerminalStream) {
    // What the terminal has broken or cut is written again as it fits now.
    if (stream.isTTY) stream.on("resize", () => this.#status !== undefined && stream.write(`${ERASE}${this.#shown}`));
  }

  get page(): Page {
    return pageOf(this.stream, process.env);
  }

  /** Whether the line of a wait can be written again and again. */
  get isLive(): boolean {
    return this.stream.isTTY === true && process.env.TERM !== "dumb" && !this.#quiet;
  }

  get columns(): number {
    return this.stream.columns || 80;
  }

  /** Bytes that nobody has read yet. */
  get writableLength(): number {
    return this.stream.writableLength;
  }

  /** No wait is shown any more. */
  silence(): void {
    this.status(undefined);
    this.#quiet = true;
  }

  /** Writes text of whole lines above the line of the wait. */
  write(text: string): boolean {
    if (this.#status === undefined) return this.stream.write(text);
    return this.stream.write(`${ERASE}${text}${this.#shown}`);
  }

  /** Shows a wait, or with undefined nothing. */
  status(text: string | undefined): void {
    if (text === this.#status || (text !== undefined && !this.isLive)) return;
    this.#status = text;
    this.stream.write(text === undefined ? ERASE : `${ERASE}${this.#shown}`);
  }

  get #shown(): string {
    return (this.#status ?? "").slice(0, this.columns - 1);
  }
}

/** There is one for the whole launcher, as there is one stderr. */
export const terminal = new Terminal(process.stderr);
