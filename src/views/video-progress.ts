import type { WanProgress } from "../protocol/results.js";
import { counted } from "../text.js";
import { figures } from "./profile-report.js";

export interface ProgressTarget {
  /** Says a line. */
  info(line: string): void;
  /** A terminal, where one line is written again and again; absent where lines are wanted instead. */
  readonly terminal?: { write(text: string): unknown; readonly columns?: number } | undefined;
}

const BAR = 30;

/** Shows how far a video is: a bar with steps, seconds a step and time left on a terminal, else a line for each step. */
export class VideoProgress {
  #frames = 0;

  constructor(
    private readonly target: ProgressTarget,
    private readonly frames: number,
    /** The same workers have made a video before. */
    private readonly again = false,
  ) {}

  report({ stage, done, total, milliseconds }: WanProgress): void {
    const seconds = milliseconds / 1e3;
    switch (stage) {
      case "prepare":
        this.#say(
          this.again
            ? `Made the models ready again in ${figures(seconds)} s.`
            : `Prepared the models in ${figures(seconds)} s: rehearsed, loaded and warmed up.`,
        );
        break;
      case "encode":
        this.#say(`Encoded the texts in ${figures(seconds)} s.`);
        break;
      case "sample": {
        const perStep = seconds / done;
        const left = Math.round(perStep * (total - done));
        const { terminal } = this.target;
        if (terminal)
          this.#draw(done, total, `step ${done}/${total}, ${figures(perStep)} s/step, ${duration(left)} left`);
        else this.target.info(`Step ${done} of ${total}: ${figures(perStep)} s/step, ${duration(left)} left.`);
        if (done === total) this.#say(`Sampled ${counted(total, "step")} in ${figures(seconds)} s.`);
        break;
      }
      case "decode":
        this.#say(`Decoded ${counted(total, "frame")} in ${figures(seconds)} s.`);
        break;
    }
  }

  /** One more frame has been written. */
  frame(): void {
    this.#frames++;
    this.#draw(this.#frames, this.frames, `frame ${this.#frames}/${this.frames}`);
  }

  /** Leaves the terminal's line empty. */
  clear(): void {
    this.target.terminal?.write("\r\x1b[K");
  }

  #say(line: string): void {
    this.clear();
    this.target.info(line);
  }

  #draw(done: number, total: number, text: string): void {
    const { terminal } = this.target;
    if (!terminal) return;
    const full = Math.round((BAR * done) / total);
    const line = `[${"=".repeat(full)}${" ".repeat(BAR - full)}] ${text}`;
    terminal.write(`\r\x1b[K${line.slice(0, (terminal.columns || 80) - 1)}`);
  }
}

/** `48 s`, `12 min 5 s`, `1 h 3 min`. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}
