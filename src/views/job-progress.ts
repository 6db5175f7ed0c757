import type { Progress } from "../protocol/results.js";
import { counted } from "../text.js";
import { byteSize, figures, threeDigits } from "./figures.js";
import { duration, WaitLine, type WaitTarget } from "./wait-line.js";

/** What --events tells of a job while it runs; the envelope of each line is cli/events.ts's. */
export type JobEvent =
  | { readonly event: "loading"; what: string; bytes: number; totalBytes: number; seconds: number }
  | { readonly event: "stage"; stage: string; seconds: number }
  | { readonly event: "step"; done: number; total: number; seconds: number; secondsLeft: number }
  | { readonly event: "frame"; done: number; total: number }
  | { readonly event: "forward"; kind: string; done: number; total: number; milliseconds: number }
  | { readonly event: "case"; done: number; total: number }
  | { readonly event: "converting"; bytes: number; totalBytes: number; seconds: number };

export interface JobTarget extends WaitTarget {
  warn(line: string): void;
  event(event: JobEvent): void;
  /** A CPU takes long for what a GPU does at once: whether to say so beforehand. */
  readonly onCpu: boolean;
}

export interface JobShape {
  /** Of the video that the job makes. */
  readonly frames?: number;
  /** The same workers have made a video before. */
  readonly again?: boolean;
  /** Forwards after the first one: those that warm up, the timed ones and the recorded one. */
  readonly forwards?: number;
}

/** From here on a CPU run is said to take long. */
const LONG_MILLISECONDS = 60_000;

/** Shows how far a job is, by what rank 0 tells: one wait after the other, and a line for each that has ended. */
export class JobProgress {
  readonly #wait: WaitLine;
  #frames = 0;
  #warned = false;
  #convertedBefore: number | undefined;

  constructor(
    private readonly target: JobTarget,
    private readonly shape: JobShape = {},
  ) {
    this.#wait = new WaitLine(target);
    this.#wait.begin(shape.again ? "getting ready" : "starting workers, loading");
  }

  report({ stage, done, total, milliseconds, what }: Progress): void {
    const seconds = milliseconds / 1e3;
    switch (stage) {
      case "load":
        if (what !== undefined) this.#loading(what, done, total, seconds);
        else this.#wait.begin("first forward");
        break;
      case "prepare":
        this.#ended(
          stage,
          seconds,
          this.shape.again
            ? `Made the models ready again in ${threeDigits(seconds)} s.`
            : `Prepared the models in ${threeDigits(seconds)} s: memory planned, weights loaded, warmed up.`,
        );
        this.#wait.begin("encoding the texts");
        break;
      case "encode":
        this.#ended(stage, seconds, `Encoded the texts in ${threeDigits(seconds)} s.`);
        this.#wait.begin("first step");
        break;
      case "sample":
        this.#step(done, total, milliseconds);
        break;
      case "decode":
        this.#ended(stage, seconds, `Decoded ${counted(total, "frame")} in ${threeDigits(seconds)} s.`);
        this.#wait.begin("finishing the file");
        break;
      case "first":
      case "warm up":
      case "forward":
      case "record":
        this.#forward(stage, done, total, milliseconds);
        break;
      case "case":
        this.target.event({ event: "case", done, total });
        this.#wait.advance({ done, total, text: `case ${done}/${total}` });
        break;
      case "convert":
        this.#converting(done, total, seconds);
        break;
    }
  }

  /** One more frame has been written. */
  frame(): void {
    const { frames: total = 0 } = this.shape;
    const done = ++this.#frames;
    this.target.event({ event: "frame", done, total });
    const perFrame = this.#wait.elapsedMs / done;
    const rate = perFrame > 0 ? `, ${threeDigits(1e3 / perFrame)} frames/s` : "";
    this.#wait.advance({ done, total, text: `frame ${done}/${total}${rate}`, leftMs: perFrame * (total - done) });
  }

  /** Leaves the terminal's line empty. */
  end(): void {
    this.#wait.end();
  }

  #loading(what: string, bytes: number, totalBytes: number, seconds: number): void {
    this.target.event({ event: "loading", what, bytes, totalBytes, seconds });
    const rate = `${byteSize(bytes / seconds)}/s`;
    if (bytes >= totalBytes) {
      this.#say(`Loaded ${what}: ${byteSize(bytes)} on rank 0 in ${threeDigits(seconds)} s, ${rate}.`);
      this.#wait.begin("warming up");
      return;
    }
    const leftMs = (1e3 * seconds * (totalBytes - bytes)) / bytes;
    const text = `loading ${byteSize(bytes)} of ${byteSize(totalBytes)}, ${rate}`;
    this.#wait.advance({ done: bytes, total: totalBytes, text, leftMs });
  }

  #converting(bytes: number, totalBytes: number, seconds: number): void {
    this.target.event({ event: "converting", bytes, totalBytes, seconds });
    // What an earlier run has left took no time of this one.
    const from = this.#convertedBefore ?? bytes;
    if (this.#convertedBefore === undefined) {
      this.#convertedBefore = bytes;
      if (bytes > 0)
        this.#say(`Going on where an earlier run ended, after ${byteSize(bytes)} of ${byteSize(totalBytes)}.`);
      this.#wait.begin("converting");
    }
    const perSecond = seconds > 0 ? (bytes - from) / seconds : 0;
    const leftMs = perSecond > 0 ? (1e3 * (totalBytes - bytes)) / perSecond : 0;
    const text = `converting ${byteSize(bytes)} of ${byteSize(totalBytes)}, ${byteSize(perSecond)}/s`;
    this.#wait.advance({ done: bytes, total: totalBytes, text, leftMs });
  }

  #step(done: number, total: number, milliseconds: number): void {
    const perStep = milliseconds / done;
    const leftMs = perStep * (total - done);
    const seconds = milliseconds / 1e3;
    this.target.event({ event: "step", done, total, seconds, secondsLeft: leftMs / 1e3 });
    this.#warnOf(leftMs, `${counted(total - done, "more step")} of ${threeDigits(perStep / 1e3)} s`);
    if (done === total) {
      this.#ended("sample", seconds, `Sampled ${counted(total, "step")} in ${threeDigits(seconds)} s.`);
      this.#wait.begin("decoding");
      return;
    }
    this.#wait.advance({ done, total, text: `step ${done}/${total}, ${figures(perStep / 1e3)} s/step`, leftMs });
  }

  #forward(stage: Progress["stage"], done: number, total: number, milliseconds: number): void {
    const kind = { first: "first", "warm up": "warm up", forward: "timed", record: "recorded" }[stage as "first"];
    this.target.event({ event: "forward", kind, done, total, milliseconds });
    if (stage === "first") {
      const { forwards = 0 } = this.shape;
      this.#warnOf(
        milliseconds * forwards,
        `${counted(forwards, "more forward")} of ${threeDigits(milliseconds / 1e3)} s each (--warmup 0 --iterations 1 is the least)`,
      );
      this.#wait.begin("next forward");
      return;
    }
    if (done === total && (stage === "forward" || stage === "record")) {
      this.#wait.begin(stage === "forward" ? "recording one more forward" : "collecting the results");
      return;
    }
    const name = stage === "warm up" ? "warm-up" : "forward";
    const leftMs = milliseconds * (total - done);
    this.#wait.advance({ done, total, text: `${name} ${done}/${total}, ${figures(milliseconds)} ms`, leftMs });
  }

  /** Once, where a CPU will take long. @param what takes so long. */
  #warnOf(leftMs: number, what: string): void {
    if (!this.target.onCpu || this.#warned || leftMs < LONG_MILLISECONDS) return;
    this.#warned = true;
    this.target.warn(`On this CPU about ${duration(Math.round(leftMs / 1e3))} are left: ${what}.`);
  }

  #ended(stage: string, seconds: number, line: string): void {
    this.target.event({ event: "stage", stage, seconds });
    this.#say(line);
  }

  #say(line: string): void {
    this.#wait.end();
    this.target.info(line);
  }
}
