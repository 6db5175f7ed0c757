import type { TraceSpan } from "../../protocol/results.js";
import type { Recording } from "../runtime/device.js";
import type { RecordedForward } from "./profile.js";

/** Stages and steps of a request by the host's clock, and what was recorded within them. */
export class Timeline {
  readonly #spans: { readonly name: string; readonly kind: TraceSpan["kind"]; from: bigint; to: bigint }[] = [];
  #began = process.hrtime.bigint();
  #recorded: { readonly step: number; readonly forward: RecordedForward } | undefined;

  /** What came since the last stage ended, or since this timeline began. */
  stage(name: string): void {
    const to = process.hrtime.bigint();
    this.#spans.push({ name, kind: "stage", from: this.#began, to });
    this.#began = to;
  }

  /** Runs the body as one step. */
  async step<T>(name: string, body: () => Promise<T>): Promise<T> {
    const from = process.hrtime.bigint();
    const value = await body();
    this.#spans.push({ name, kind: "step", from, to: process.hrtime.bigint() });
    return value;
  }

  /** @param step whose forwards were recorded, from 1. */
  recorded(step: number, forward: RecordedForward): void {
    this.#recorded = { step, forward };
  }

  /** All of it, by the clock of what was recorded. */
  parts(): { readonly step: number; readonly recorded: RecordedForward; readonly recording: Recording } {
    if (!this.#recorded) throw new Error("No step of this request was recorded.");
    const { step, forward } = this.#recorded;
    const { events, spans, beganMicroseconds } = forward.recording;
    const own = this.#spans.map(({ name, kind, from, to }) => ({
      ...{ name, kind, startMicroseconds: Number(from) / 1e3 - beganMicroseconds },
      durationMicroseconds: Number(to - from) / 1e3,
    }));
    return { step, recorded: forward, recording: { events, spans: [...own, ...spans], beganMicroseconds } };
  }
}
