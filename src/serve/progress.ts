import type { EngineEvent } from "../engine/engine.js";
import type { ProgressEvent } from "./schemas.js";

/** Of a hundred: what sampling takes of a video's progress, after its texts. */
const TEXTS = 2;
const SAMPLING = 88;

/** How far a video is, from what the engine tells. */
export class VideoProgress {
  #stage: ProgressEvent["stage"] = "prepare";
  #step = 0;
  #eta: number | null = null;
  #decoded = 0;

  constructor(
    /** Known once the first one is done. */
    private steps: number,
    private readonly frames: number,
    /** What decoding took before, of a video alike. */
    private readonly decodeSeconds?: number,
  ) {}

  /** @returns whether there is something new to tell. */
  take(event: EngineEvent): boolean {
    if (event.kind === "warning" || event.kind === "preview") return false;
    if (event.kind === "frame") {
      this.#decoded += 1;
      this.#stage = "decode";
      return true;
    }
    if (event.kind === "step") {
      this.#stage = "sample";
      [this.#step, this.steps, this.#eta] = [event.done, event.total, event.millisecondsLeft / 1000];
      return true;
    }
    const next = { prepare: "encode", encode: "sample", sample: "decode", decode: "decode" } as const;
    if (event.stage === "sample") [this.#step, this.#eta] = [this.steps, 0];
    this.#stage = next[event.stage];
    return true;
  }

  /** 99 until the video is whole. */
  get percent(): number {
    if (this.#stage === "prepare" || this.#stage === "encode") return 0;
    const rest = 100 - TEXTS - SAMPLING;
    const made = TEXTS + (SAMPLING * this.#step) / this.steps + (rest * this.#decoded) / this.frames;
    return Math.min(99, Math.floor(made));
  }

  get event(): ProgressEvent {
    const { steps, percent: progress } = this;
    return { stage: this.#stage, step: this.#step, steps, progress, eta_s: this.#secondsLeft };
  }

  get #secondsLeft(): number | null {
    const decode =
      this.decodeSeconds === undefined ? undefined : this.decodeSeconds * (1 - this.#decoded / this.frames);
    if (this.#stage === "decode") return decode ?? null;
    return this.#eta === null ? null : this.#eta + (decode ?? 0);
  }
}
