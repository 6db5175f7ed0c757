import { pulsesPerTimeout } from "../protocol/messages.js";

/** Beyond the timeout, for a rank that is alive on a machine with far too much to do. */
const MARGIN_MILLISECONDS = 3000;

/** Tells which ranks have fallen silent: stopped, or stuck in a driver, so that neither an exit nor an error tells of them. */
export class SignsOfLife {
  /** When each rank was last heard of, by performance.now(). */
  readonly #heard = new Map<number, number>();
  readonly #timer: NodeJS.Timeout;
  #lastLook = performance.now();

  /** @param onSilence is called once, with the ranks in order. */
  constructor(
    private readonly timeoutSeconds: number,
    private readonly onSilence: (ranks: readonly number[]) => void,
  ) {
    const period = Math.max(100, (timeoutSeconds * 1000) / pulsesPerTimeout);
    this.#timer = setInterval(() => this.#look(period), period).unref();
  }

  /** Signs of this rank are expected from now on. */
  expect(rank: number): void {
    this.#heard.set(rank, performance.now());
  }

  heard(rank: number): void {
    if (this.#heard.has(rank)) this.expect(rank);
  }

  /** This rank has nothing more to say. */
  forget(rank: number): void {
    this.#heard.delete(rank);
  }

  /** Ranks that have missed two signs, though they may yet give one: whoever waits in vain, waits for them. */
  get quiet(): readonly number[] {
    const usual = (2000 * this.timeoutSeconds) / pulsesPerTimeout;
    const now = performance.now();
    return [...this.#heard].filter(([, heard]) => now - heard > usual).map(([rank]) => rank);
  }

  /** Ranks that have given no sign since then, by performance.now(). */
  silentSince(time: number): readonly number[] {
    return [...this.#heard].filter(([, heard]) => heard < time).map(([rank]) => rank);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(period: number): void {
    const now = performance.now();
    // Late: the launcher itself was stopped for a while (Ctrl-Z, a laptop's lid), and what came meanwhile is still to be read.
    const late = now - this.#lastLook > 2 * period;
    this.#lastLook = now;
    if (late) for (const rank of this.#heard.keys()) this.#heard.set(rank, now);
    const allowed = this.timeoutSeconds * 1000 + MARGIN_MILLISECONDS;
    const silent = [...this.#heard].filter(([, heard]) => now - heard > allowed).map(([rank]) => rank);
    if (silent.length === 0) return;
    this.close();
    this.onSilence(silent.sort((a, b) => a - b));
  }
}
