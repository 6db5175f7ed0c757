import type { Address } from "./abi.js";

/** Every allocation starts on such a boundary: enough for TMA, vector loads and cuBLASLt's best kernels. */
export const ALIGNMENT = 1024;

export function alignUp(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/**
 * A bump allocator over one block of device memory. Inner scopes give their space back, so the same sequence of calls
 * returns the same addresses: what a captured graph needs. Before `back` is called it only measures.
 */
export class Arena {
  #base: Address = 0;
  #capacity = Number.POSITIVE_INFINITY;
  #used = 0;
  #peak = 0;

  /** The most bytes in use at once so far. */
  get peak(): number {
    return this.#peak;
  }

  /** Bytes in use now. */
  get used(): number {
    return this.#used;
  }

  /** Gives the arena its memory, after a measuring pass. */
  back(base: Address, capacity: number): void {
    this.#base = base;
    this.#capacity = capacity;
  }

  allocate(bytes: number): Address {
    const address = this.#base + this.#used;
    this.#used += alignUp(bytes);
    if (this.#used > this.#capacity) {
      throw new Error(`The forward asked for ${this.#used} bytes, its measuring pass only for ${this.#capacity}.`);
    }
    this.#peak = Math.max(this.#peak, this.#used);
    return address;
  }

  /** Runs two bodies whose work may run at the same time: nothing of the second lies where something of the first did. */
  beside(first: () => void, second: () => void): void {
    const [mark, peak] = [this.#used, this.#peak];
    this.#peak = mark;
    this.scope(first);
    this.#used = this.#peak;
    try {
      second();
    } finally {
      this.#used = mark;
      this.#peak = Math.max(peak, this.#peak);
    }
  }

  /** Runs the body and gives back everything that it allocated. */
  scope<T>(body: () => T): T {
    const mark = this.#used;
    try {
      return body();
    } finally {
      this.#used = mark;
    }
  }
}
