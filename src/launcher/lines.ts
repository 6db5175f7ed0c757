import type { Readable } from "node:stream";

/** A line longer than this is passed on in pieces, so that a worker that never ends its line cannot fill memory. */
const LONGEST_LINE = 64 * 1024;

/** The lines of a stream as they come. */
export class LineReader {
  #rest = "";
  #finished = false;
  /** Pieces of text that came so far, lines or not. */
  #pieces = 0;

  #waiting = false;
  #hurried = false;

  /**
   * @param take gets lines in order, without their ends; also an unfinished last line, when the stream ends. Where it returns a
   * promise, nothing more is read until that resolves.
   */
  constructor(
    private readonly stream: Readable,
    private readonly take: (lines: readonly string[]) => Promise<void> | undefined,
  ) {
    stream.setEncoding("utf8");
    stream.on("data", (chunk: string) => this.#read(chunk));
    stream.on("close", () => this.finish());
    // A pipe that breaks has ended, which `close` tells.
    stream.on("error", () => undefined);
  }

  get pieces(): number {
    return this.#pieces;
  }

  /** Whether the stream waits for who takes its lines. */
  get waiting(): boolean {
    return this.#waiting;
  }

  get closed(): boolean {
    return this.stream.closed;
  }

  /** From now on nobody is waited for. */
  hurry(): void {
    this.#hurried = true;
    this.#waiting = false;
    this.stream.resume();
  }

  /** Hands over an unfinished last line; nothing is taken after that. */
  finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    if (this.#rest !== "") void this.take([this.#rest]);
    this.#rest = "";
    this.stream.destroy();
  }

  #read(chunk: string): void {
    if (this.#finished) return;
    this.#pieces++;
    const lines = linesIn(this.#rest + chunk);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > LONGEST_LINE) {
      lines.push(this.#rest);
      this.#rest = "";
    }
    const taken = lines.length > 0 ? this.take(lines) : undefined;
    if (taken !== undefined && !this.#hurried) void this.#pause(taken);
  }

  async #pause(taken: Promise<void>): Promise<void> {
    this.#waiting = true;
    this.stream.pause();
    await taken;
    if (this.#hurried) return;
    this.#waiting = false;
    this.stream.resume();
  }
}

/**
 * The lines of a text, its unfinished rest last. A carriage return of its own ends a line too: progress bars write it before each
 * state, and a state is passed on when the next begins. One at the very end may yet be followed by a newline.
 */
function linesIn(text: string): string[] {
  const lines = text.split("\n");
  if (!text.includes("\r")) return lines;
  const rest = lines.pop() ?? "";
  const begin = rest.length > 1 ? rest.lastIndexOf("\r", rest.length - 2) + 1 : 0;
  return [...lines.flatMap(wholeLine), ...statesOf(rest.slice(0, begin)), rest.slice(begin)];
}

function wholeLine(line: string): string[] {
  const states = statesOf(line);
  return states.length > 0 ? states : [""];
}

function statesOf(text: string): string[] {
  return text.split("\r").filter((state) => state !== "");
}
