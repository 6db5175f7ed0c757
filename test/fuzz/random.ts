/** Random numbers that a seed repeats: mulberry32 (Tommy Ettinger, public domain). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 to 1, without 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** 0 to `below` - 1. */
  whole(below: number): number {
    return Math.floor(this.next() * below);
  }

  /** @throws RangeError for an empty list. */
  of<T>(list: readonly T[]): T {
    const found = list[this.whole(list.length)];
    if (found === undefined) throw new RangeError("There is nothing to choose from.");
    return found;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.whole(256)));
  }
}
