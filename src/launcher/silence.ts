/** Tells when all ranks together have written nothing for too long. */
export class Silence {
  readonly #timer: NodeJS.Timeout;
  readonly #period: number;
  #last = performance.now();
  #look = performance.now();

  /** @param onSilent is called once. */
  constructor(
    private readonly seconds: number,
    private readonly onSilent: () => void,
  ) {
    this.#period = Math.min(1000, (seconds * 1000) / 4);
    this.#timer = setInterval(() => this.#check(), this.#period).unref();
  }

  /** A rank has written something. */
  broken(): void {
    this.#last = performance.now();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #check(): void {
    const now = performance.now();
    // The launcher itself was stopped for a while (Ctrl-Z), and what came meanwhile is still to be read.
    if (now - this.#look > 3 * this.#period) this.#last = now;
    this.#look = now;
    if (now - this.#last < this.seconds * 1000) return;
    this.close();
    this.onSilent();
  }
}
