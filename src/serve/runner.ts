import { setTimeout as sleep } from "node:timers/promises";
import type { Engine } from "../engine/engine.js";
import { asDitrunError, DitrunError, messageOf } from "../failure.js";
import type { Logger } from "../launcher/logger.js";
import type { Jobs } from "./jobs.js";
import { warmUp } from "./make-video.js";
import type { Metrics } from "./metrics.js";
import type { Queue } from "./queue.js";
import type { Offer } from "./settings.js";

/** Starts of workers that may fail in a row before /healthz says so. */
const MOST_FAILURES = 3;
const LONGEST_WAIT_MS = 60_000;
/** How long a worker may take to answer. */
const SILENCE_MS = 5000;

export interface RunnerParts {
  readonly open: (signal: AbortSignal) => Promise<Engine>;
  readonly jobs: Jobs;
  readonly queue: Queue;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly offer: Offer;
}

/** One group of workers: it has them started, warmed up and started again, and makes one video after the other. */
export class Runner {
  readonly #drain = new AbortController();
  readonly #stop = new AbortController();
  #engine: Engine | undefined;
  #ready = false;
  /** Starts that failed since the last one that did not. */
  #failures = 0;
  #restarts = 0;
  #work: Promise<void> = Promise.resolve();
  #asking: Promise<readonly number[]> | undefined;

  constructor(private readonly parts: RunnerParts) {}

  /** Whether the workers are there, and know all sizes. */
  get ready(): boolean {
    return this.#ready;
  }

  /** Whether the workers are there, or are likely to come. */
  get healthy(): boolean {
    return this.#failures < MOST_FAILURES;
  }

  /** Asks the workers for a sign of life. @returns those that have given none for a while; who asks meanwhile gets the same answer. */
  silentRanks(): Promise<readonly number[]> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async #ask(): Promise<readonly number[]> {
    return (await this.#engine?.silentRanks(SILENCE_MS)) ?? [];
  }

  get restarts(): number {
    return this.#restarts;
  }

  /** How a request is sampled that does not say; undefined while no workers are there. */
  get sampling(): ReturnType<Engine["samplingOf"]> | undefined {
    const { steps, guideScale, shift } = this.parts.offer;
    return this.#engine?.samplingOf({ prompt: "-", steps, guideScale, shift });
  }

  /** Starts the workers for the first time, and then makes videos. @throws DitrunError where the workers cannot be had. */
  async start(): Promise<void> {
    await this.#open();
    this.#work = this.#loop();
  }

  /** Takes no more videos; resolves once the one at hand and the workers have ended. */
  async drain(): Promise<void> {
    this.#drain.abort();
    await this.#work;
    await this.#close();
  }

  /** Ends the video at hand, which then waits for the next server. */
  stop(): void {
    this.#drain.abort();
    this.#stop.abort(new DitrunError("ERR_CLOSED", "The server is ending."));
  }

  async #loop(): Promise<void> {
    const { jobs, queue, logger } = this.parts;
    const draining = this.#drain.signal;
    while (!draining.aborted) {
      const engine = this.#engine ?? (await this.#reopen());
      if (!engine) continue;
      const gone = new AbortController();
      void engine.ended.then((failure) => {
        this.#ready = false;
        gone.abort(failure);
      });
      const id = await queue.take(AbortSignal.any([draining, gone.signal]));
      // A video may have been handed over while the workers were ending: its run then finds them gone.
      if (id !== undefined) {
        await jobs.run(id, engine, this.#stop.signal).catch((error: unknown) => logger.error(messageOf(error)));
      }
      if (!gone.signal.aborted || draining.aborted) continue;
      const failure = asDitrunError(gone.signal.reason);
      logger.warn(`The workers have ended, and are started again. ${failure.message}`);
      this.parts.metrics.restarted(failure.code);
      this.#restarts += 1;
      await this.#close();
    }
  }

  /** @returns undefined where the workers cannot be had now. */
  async #reopen(): Promise<Engine | undefined> {
    try {
      return await this.#open();
    } catch (error) {
      if (this.#drain.signal.aborted) return undefined;
      this.#failures += 1;
      const seconds = Math.min(LONGEST_WAIT_MS, 1000 * 2 ** this.#failures) / 1000;
      this.parts.logger.error(`${messageOf(error)} The workers are started again in ${seconds} s.`);
      await sleep(seconds * 1000, undefined, { signal: this.#drain.signal }).catch(() => undefined);
      return undefined;
    }
  }

  async #open(): Promise<Engine> {
    const { open, offer, metrics, logger } = this.parts;
    const signal = this.#drain.signal;
    const started = performance.now();
    // Workers that start need not finish for a server that ends; those that work are ended by `#close`.
    const opening = new AbortController();
    const give = () => opening.abort(new DitrunError("ERR_CLOSED", "The server is ending."));
    if (signal.aborted) give();
    signal.addEventListener("abort", give);
    try {
      this.#engine = await open(opening.signal);
      for (const { width, height } of offer.sizes) {
        await warmUp(this.#engine, { width, height, frames: offer.frames }, signal);
        logger.info(`Ready for ${width}x${height}, ${offer.frames} frames.`);
      }
    } catch (error) {
      await this.#close();
      throw error;
    } finally {
      signal.removeEventListener("abort", give);
    }
    metrics.loaded((performance.now() - started) / 1000);
    this.#failures = 0;
    this.#ready = true;
    return this.#engine;
  }

  async #close(): Promise<void> {
    const engine = this.#engine;
    this.#engine = undefined;
    this.#ready = false;
    // What a worker does on its way out matters less than why.
    await engine?.close().catch(() => undefined);
  }
}
