import type { WanProgress } from "../../protocol/results.js";
import type { Store } from "../store.js";

/** Times the stages of a task one after the other; rank 0 tells the launcher how far they are, under the name `progress`. */
export class StageClock {
  #started = performance.now();

  constructor(private readonly store: Store) {}

  async progress(stage: WanProgress["stage"], done: number, total: number): Promise<void> {
    if (this.store.rank !== 0) return;
    const progress: WanProgress = { stage, done, total, milliseconds: performance.now() - this.#started };
    await this.store.emit("progress", new TextEncoder().encode(JSON.stringify(progress)));
  }

  /** Ends a stage, and begins the next. @returns its wall time in milliseconds. */
  async end(stage: WanProgress["stage"], total = 1): Promise<number> {
    const milliseconds = performance.now() - this.#started;
    await this.progress(stage, total, total);
    this.#started = performance.now();
    return milliseconds;
  }
}
