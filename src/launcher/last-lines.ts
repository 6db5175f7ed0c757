import { visible } from "./terminal-text.js";

const MOST_LINES = 12;
const MOST_CHARACTERS = 1000;
/** Frames of V8's native stack follow what they are about, and would push it out of sight. */
const stackFrame = /^\s*\d+: 0x[0-9a-f]+ |^-+ (Native|JavaScript) stack trace -+$|^\s*$/;

/** The last lines of a worker that say something. */
export class LastLines {
  readonly #lines: string[] = [];

  add(lines: readonly string[]): void {
    for (const line of lines) {
      if (!stackFrame.test(line)) this.#lines.push(line);
    }
    this.#lines.splice(0, this.#lines.length - MOST_LINES);
  }

  /** As they may be shown. */
  get shown(): string[] {
    return this.#lines.map((line) =>
      visible(line.length > MOST_CHARACTERS ? `${line.slice(0, MOST_CHARACTERS)} …` : line),
    );
  }
}
