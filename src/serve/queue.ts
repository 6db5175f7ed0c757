/** A place that a request holds from its first byte on, before anything is known of it. */
export interface Reservation {
  /** The video takes the place. */
  enter(id: string): void;
  /** Nothing came of it. Without effect once the place is taken. */
  release(): void;
}

/** Videos that wait, first come first served, and never more than a number of them. */
export class Queue {
  #ids: string[] = [];
  #reserved = 0;
  readonly #takers: (() => void)[] = [];

  /** @param capacity videos that may wait, those that are being read included. */
  constructor(readonly capacity: number) {}

  get depth(): number {
    return this.#ids.length;
  }

  /** A place, or undefined where there is none. */
  reserve(): Reservation | undefined {
    if (this.#ids.length + this.#reserved >= this.capacity) return undefined;
    this.#reserved += 1;
    let open = true;
    const end = () => {
      if (open) this.#reserved -= 1;
      open = false;
    };
    return {
      release: end,
      enter: (id) => {
        end();
        this.add(id);
      },
    };
  }

  /** Lets one wait that was promised its place before. @param first it was begun already, and is next. */
  add(id: string, first = false): void {
    if (first) this.#ids.unshift(id);
    else this.#ids.push(id);
    this.#takers.shift()?.();
  }

  /** @returns whether it waited. */
  remove(id: string): boolean {
    const before = this.#ids.length;
    this.#ids = this.#ids.filter((each) => each !== id);
    return this.#ids.length < before;
  }

  /** 1 is next. */
  positionOf(id: string): number | undefined {
    const index = this.#ids.indexOf(id);
    return index === -1 ? undefined : index + 1;
  }

  /** The next one; waits for it. @returns undefined once the signal is aborted. */
  async take(signal: AbortSignal): Promise<string | undefined> {
    while (!signal.aborted) {
      const id = this.#ids.shift();
      if (id !== undefined) return id;
      await new Promise<void>((resolve) => {
        const wake = () => {
          signal.removeEventListener("abort", stop);
          resolve();
        };
        const stop = () => {
          this.#takers.splice(this.#takers.indexOf(wake), 1);
          wake();
        };
        this.#takers.push(wake);
        signal.addEventListener("abort", stop);
      });
    }
    // Whoever was woken for a video and may not take it wakes another.
    if (this.#ids.length > 0) this.#takers.shift()?.();
    return undefined;
  }
}
