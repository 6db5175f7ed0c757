import type { WanProgress } from "../../protocol/results.js";
import type { Store } from "../store.js";

/** Times the stages of a task one after the other; rank 0 tells the launcher how far they are, under the name `progress`. */
export class StageClock {
  #started = performance.now();

  constructor(private readonly store: Store) {}

  async progress(stage: WanProgress["stage"], done: number, total: number, earlierMs = 0): Promise<void> {
    if (this.store.rank !== 0) return;
    const milliseconds = earlierMs + performance.now() - this.#started;
    const progress: WanProgress = { stage, done, total, milliseconds };
    await this.store.emit("progress", new TextEncoder().encode(JSON.stringify(progress)));
  }

  /** Interrupts a stage, and begins another. @returns its wall time so far in milliseconds. */
  lap(): number {
    const milliseconds = performance.now() - this.#started;
    this.#started = performance.now();
    return milliseconds;
  }

  /** Ends a stage, and begins the next. @returns its wall time in milliseconds, with what was spent on it before. */
  async end(stage: WanProgress["stage"], total = 1, earlierMs = 0): Promise<number> {
    // Taken first: the report waits its turn behind the frames that the launcher has yet to encode.
    const milliseconds = earlierMs + performance.now() - this.#started;
    await this.progress(stage, total, total, earlierMs);
    this.#started = performance.now();
    return milliseconds;
  }
}
