import { basename } from "node:path";

/** What a Python program said of its end, in one line: `ValueError: no such layer`. */
const beginning = /^Traceback \(most recent call last\):/;
/** PyTorch puts the rank before each line of an exception that nobody caught. */
const rankPrefix = /^\[rank\d+\]:\s?/;
const MOST_CHARACTERS = 400;
const MOST_FRAMES = 100;

/** What faulthandler writes of the thread that a signal met; others come before it. */
const stackBeginning = /^Current thread 0x[0-9a-f]+.* \(most recent call first\):/;
const stackFrame = /^ {2}File "([^"]+)", line (\d+) in (.+)$/;
/** Frames of Python's own and of installed packages: where a program waits matters less than from where it does. */
const library = /\/(?:site|dist)-packages\/|\/lib\/python3|^<frozen /;

/** Reads tracebacks as they come, line by line. */
export class Tracebacks {
  #inside = false;
  #last: string | undefined;
  #inStack = false;
  #frames: string[] = [];

  add(lines: readonly string[]): void {
    for (const each of lines) {
      const line = each.replace(rankPrefix, "");
      this.#readStack(line);
      if (beginning.test(line)) this.#inside = true;
      else if (this.#inside && /^\S/.test(line)) {
        this.#inside = false;
        this.#last = line.slice(0, MOST_CHARACTERS);
      }
    }
  }

  /** The last line of the last traceback, which names the exception; undefined where there was none. */
  get last(): string | undefined {
    return this.#last;
  }

  /** Where the program was when a fatal signal met it: `reduce (train.py:31)`, in its own files if possible. */
  get place(): string | undefined {
    const frames = this.#frames.map((line) => stackFrame.exec(line) ?? []);
    const [, file, line, name] = frames.find(([, path = ""]) => !library.test(path)) ?? frames[0] ?? [];
    return file === undefined ? undefined : `${name} (${basename(file)}:${line})`;
  }

  #readStack(line: string): void {
    if (stackBeginning.test(line)) {
      this.#inStack = true;
      this.#frames = [];
    } else if (this.#inStack && stackFrame.test(line)) {
      if (this.#frames.length < MOST_FRAMES) this.#frames.push(line);
    } else this.#inStack = false;
  }
}

/**
 * The message of an error file of PyTorch (`torch/distributed/elastic/multiprocessing/errors/error_handler.py`): an object with
 * `message`, which is text or has `message` again. @returns undefined for anything else.
 */
export function errorFileMessage(text: string): string | undefined {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    return undefined;
  }
  for (let depth = 0; depth < 2 && typeof found === "object" && found !== null && "message" in found; depth++) {
    found = found.message;
  }
  return typeof found === "string" && found !== "" ? found.split("\n")[0]?.slice(0, MOST_CHARACTERS) : undefined;
}
