import { Tracebacks } from "./python-errors.js";
import { visible } from "./terminal-text.js";

const MOST_LINES = 12;
const MOST_CHARACTERS = 1000;
/** Frames of V8's native stack follow what they are about, and would push it out of sight. */
const stackFrame = /^\s*\d+: 0x[0-9a-f]+ |^-+ (Native|JavaScript) stack trace -+$|^\s*$/;

/** The last lines of a worker that say something. */
export class LastLines {
  readonly #lines: string[] = [];
  readonly #tracebacks = new Tracebacks();

  add(lines: readonly string[]): void {
    this.#tracebacks.add(lines);
    // Of many lines only the last can stay.
    for (let index = lines.length - 1, kept = 0; index >= 0 && kept < MOST_LINES; index--) {
      const line = lines[index] ?? "";
      if (stackFrame.test(line)) continue;
      this.#lines.splice(this.#lines.length - kept, 0, line);
      kept++;
    }
    this.#lines.splice(0, this.#lines.length - MOST_LINES);
  }

  /** As they may be shown. */
  get shown(): string[] {
    return this.#lines.map((line) => visible(shortened(line)));
  }

  /** The exception that ended a Python program, as it may be shown. */
  get exception(): string | undefined {
    const { last } = this.#tracebacks;
    return last === undefined ? undefined : visible(last);
  }

  /** Where a Python program was when a fatal signal met it, as it may be shown. */
  get place(): string | undefined {
    const { place } = this.#tracebacks;
    return place === undefined ? undefined : visible(place);
  }
}

function shortened(line: string): string {
  return line.length > MOST_CHARACTERS ? `${line.slice(0, MOST_CHARACTERS)} …` : line;
}
