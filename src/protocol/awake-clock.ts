/** How often the clock is looked at, and by how much at most a deadline comes late. */
const TICK_MILLISECONDS = 100;
/** A tick that comes later than this was slept through. */
const ASLEEP_MILLISECONDS = 1000;

interface Deadline {
  left: number;
  readonly act: () => void;
}

/**
 * Deadlines by the time in which this process ran: while it is stopped (Ctrl-Z, a laptop's lid) the clock stands still, so that
 * what came meanwhile is read before anybody is blamed.
 */
export class AwakeClock {
  readonly #deadlines = new Set<Deadline>();
  #ticking: NodeJS.Timeout | undefined;
  #lastTick = 0;

  /** @param halted tells, when asked at a tick, that whoever is waited for stands still too: such time does not count either. */
  constructor(private readonly halted: () => boolean = () => false) {}

  /** Calls `act` once that time has passed. @returns how to call it off. */
  after(milliseconds: number, act: () => void): () => void {
    const deadline: Deadline = { left: milliseconds, act };
    this.#deadlines.add(deadline);
    if (this.#ticking === undefined) {
      this.#lastTick = performance.now();
      this.#ticking = setInterval(() => this.#tick(), TICK_MILLISECONDS);
    }
    return () => {
      this.#deadlines.delete(deadline);
      this.#restIfIdle();
    };
  }

  /** Calls everything off. */
  close(): void {
    this.#deadlines.clear();
    this.#restIfIdle();
  }

  #tick(): void {
    const now = performance.now();
    const passed = now - this.#lastTick;
    this.#lastTick = now;
    if (passed > ASLEEP_MILLISECONDS || this.halted()) return;
    for (const deadline of this.#deadlines) {
      deadline.left -= passed;
      if (deadline.left > 0) continue;
      this.#deadlines.delete(deadline);
      deadline.act();
    }
    this.#restIfIdle();
  }

  #restIfIdle(): void {
    if (this.#deadlines.size > 0) return;
    clearInterval(this.#ticking);
    this.#ticking = undefined;
  }
}
