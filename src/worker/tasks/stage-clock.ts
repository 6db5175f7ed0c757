import type { Progress } from "../../protocol/results.js";
import type { Store } from "../store.js";

/** Tells the launcher how far the ranks are; rank 0 alone does. */
export async function tell(store: Pick<Store, "rank" | "emit">, progress: Progress): Promise<void> {
  if (store.rank === 0) await store.emit("progress", new TextEncoder().encode(JSON.stringify(progress)));
}

/** Times the stages of a task one after the other; rank 0 tells the launcher how far they are, under the name `progress`. */
export class StageClock {
  #started = performance.now();

  constructor(private readonly store: Store) {}

  async progress(stage: Progress["stage"], done: number, total: number, earlierMs = 0): Promise<void> {
    await tell(this.store, { stage, done, total, milliseconds: earlierMs + performance.now() - this.#started });
  }

  /** Interrupts a stage, and begins another. @returns its wall time so far in milliseconds. */
  lap(): number {
    const milliseconds = performance.now() - this.#started;
    this.#started = performance.now();
    return milliseconds;
  }

  /** Ends a stage, and begins the next. @returns its wall time in milliseconds, with what was spent on it before. */
  async end(stage: Progress["stage"], total = 1, earlierMs = 0): Promise<number> {
    // Taken first: the report waits its turn behind the frames that the launcher has yet to encode.
    const milliseconds = earlierMs + performance.now() - this.#started;
    await this.progress(stage, total, total, earlierMs);
    this.#started = performance.now();
    return milliseconds;
  }
}
