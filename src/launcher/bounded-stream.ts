import type { Writable } from "node:stream";

/** What may wait for a reader that does not keep up. */
const MOST_WAITING_BYTES = 4 * 2 ** 20;
/** A reader that takes nothing for so long does not read; one that is slow is waited for. */
const PATIENCE_MILLISECONDS = 5000;
const LOOK_MILLISECONDS = 50;

/**
 * A stream of lines to somebody who may not read them: what waits is bounded, so that neither the launcher's memory nor the end
 * of its job depends on the reader. Whoever writes should await `room`; what is written without it is dropped and counted.
 */
export class BoundedStream {
  #dropped = 0;
  #stuck = false;
  #room: Promise<void> | undefined;

  /** @param most bytes that may wait. */
  constructor(
    private readonly stream: Pick<Writable, "write" | "writableLength">,
    private readonly most: number = MOST_WAITING_BYTES,
  ) {}

  /** Writes text of whole lines, or drops it where too much waits to be read. */
  write(text: string): void {
    if (this.stream.writableLength > this.most) {
      this.#dropped += text.split("\n").length - 1;
      return;
    }
    if (this.#dropped > 0) {
      const lines = this.#dropped;
      this.#dropped = 0;
      this.stream.write(`ditrun: ${lines} lines are missing here, since nobody read them.\n`);
    }
    this.stream.write(text);
  }

  /** Resolves when the reader has caught up, or is not waited for any longer; undefined where there is room. */
  get room(): Promise<void> | undefined {
    const waiting = this.stream.writableLength;
    if (waiting <= this.most / 2) this.#stuck = false;
    if (waiting <= this.most || this.#stuck) return undefined;
    this.#room ??= this.#untilRoom().finally(() => {
      this.#room = undefined;
    });
    return this.#room;
  }

  #untilRoom(): Promise<void> {
    let least = this.stream.writableLength;
    let progress = performance.now();
    return new Promise((resolve) => {
      const timer = setInterval(() => {
        const now = performance.now();
        const waiting = this.stream.writableLength;
        if (waiting < least) progress = now;
        least = Math.min(least, waiting);
        this.#stuck = now - progress > PATIENCE_MILLISECONDS;
        if (waiting > this.most / 2 && !this.#stuck) return;
        clearInterval(timer);
        resolve();
      }, LOOK_MILLISECONDS);
    });
  }
}
