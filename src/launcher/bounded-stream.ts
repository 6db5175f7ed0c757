import type { Writable } from "node:stream";

/** What a reader that does not keep up may leave unread; beyond it lines are dropped and counted. */
const MOST_WAITING_BYTES = 4 * 2 ** 20;

/**
 * A stream of lines to somebody who may not read them: what waits is bounded, so that neither the launcher's memory nor the end
 * of its job depends on the reader.
 */
export class BoundedStream {
  #dropped = 0;

  /** @param most bytes that may wait. */
  constructor(
    private readonly stream: Writable,
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
}
