/** Every allocation of a forward begins at a multiple of this (worker/runtime/arena.ts). */
const ALIGNMENT = 1024;

export const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/**
 * The memory of one rank, in numbers: what stays, what a forward takes and gives back, and the blocks that peers write to. It counts as
 * the worker's device, arena and peer heap do (src/worker/runtime, src/worker/comm/peer/heap.ts).
 */
export class Ledger {
  #kept = 0;
  #used = 0;
  #peak = 0;
  readonly #blocks = new Map<string, number>();

  /** Bytes of tensors that outlive a forward. */
  keep(bytes: number): void {
    this.#kept += bytes;
  }

  /** Bytes of the forward, until the innermost scope ends. */
  take(bytes: number): void {
    this.#used += aligned(bytes);
    this.#peak = Math.max(this.#peak, this.#used);
  }

  /** A block of peer memory, as long as the longest use of its name. */
  block(name: string, bytes: number): void {
    this.#blocks.set(name, Math.max(bytes, this.#blocks.get(name) ?? 0));
  }

  /** Runs the body and gives back what it took. */
  scope(body: () => void): void {
    const mark = this.#used;
    body();
    this.#used = mark;
  }

  /** Runs two bodies that take memory at the same time. */
  beside(first: () => void, second: () => void): void {
    const [mark, peak] = [this.#used, this.#peak];
    this.#peak = mark;
    this.scope(first);
    this.#used = this.#peak;
    second();
    this.#used = mark;
    this.#peak = Math.max(peak, this.#peak);
  }

  /** The most that forwards hold at once. */
  get arena(): number {
    return this.#peak;
  }

  /** Of everything. */
  get bytes(): number {
    return this.#kept + this.#peak + [...this.#blocks.values()].reduce((sum, bytes) => sum + aligned(bytes), 0);
  }
}
