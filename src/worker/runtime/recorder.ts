import type { Exchange, Phase, TraceEvent, TraceSpan } from "../../protocol/results.js";
import type { Handle } from "./abi.js";
import type { KernelCalls } from "./kernels.js";
import { type StreamName, timestamp } from "./streams.js";
import type { Work } from "./work.js";

/** A forward with a clock around every kernel. */
export interface Recording {
  readonly events: TraceEvent[];
  /** What `span` names, on the compute stream. */
  readonly spans: TraceSpan[];
  /** When it began, in microseconds of the host's CLOCK_MONOTONIC, which all processes of a host share. */
  readonly beganMicroseconds: number;
}

/** What goes to a stream, and what it costs. */
interface Launched {
  readonly name: string;
  readonly phase: Phase;
  readonly stream: StreamName;
  readonly work: Work;
  readonly arenaBytes: number;
}

interface Timed {
  readonly start: Handle;
  readonly end: Handle;
}

interface Interval extends Launched, Timed {
  readonly layer: string | undefined;
  readonly exchange: Exchange | undefined;
  /** Before and after it was queued, of process.hrtime. */
  readonly queued: readonly [bigint, bigint];
}

/** Looks at both clocks at once; the one with the least between its two host times counts. */
const CLOCK_LOOKS = 5;

/** Puts an event before and after all that is queued for one forward. */
export class Recorder {
  readonly #intervals: Interval[] = [];
  readonly #spans: (Pick<TraceSpan, "name" | "kind"> & Timed)[] = [];
  readonly #origin: Handle;
  /** The layer that launches are of. */
  #layer: string | undefined;
  /** What launches exchange. */
  #exchange: Exchange | undefined;

  constructor(
    private readonly kernels: KernelCalls,
    private readonly streams: Readonly<Record<StreamName, Handle>>,
  ) {
    this.#origin = this.#timestamp("compute");
  }

  /** @param queue what queues it. */
  launch(launched: Launched, queue: () => void): void {
    const start = this.#timestamp(launched.stream);
    const before = process.hrtime.bigint();
    queue();
    const queued = [before, process.hrtime.bigint()] as const;
    const end = this.#timestamp(launched.stream);
    this.#intervals.push({ ...launched, layer: this.#layer, exchange: this.#exchange, queued, start, end });
  }

  /** Runs the body, whose launches are parts of this exchange with other ranks. */
  exchanging<T>(exchange: Exchange, body: () => T): T {
    const before = this.#exchange;
    this.#exchange = exchange;
    try {
      return body();
    } finally {
      this.#exchange = before;
    }
  }

  /** Runs the body, whose launches are those of this layer. */
  named<T>(layer: string, body: () => T): T {
    const before = this.#layer;
    this.#layer = layer;
    try {
      return body();
    } finally {
      this.#layer = before;
    }
  }

  /** Runs the body, of which the compute stream's part is timed as a whole. */
  span<T>(kind: TraceSpan["kind"], name: string, body: () => T): T {
    const start = this.#timestamp("compute");
    const value = body();
    this.#spans.push({ name, kind, start, end: this.#timestamp("compute") });
    return value;
  }

  /** What was recorded, in microseconds since the first event; the device must be idle. */
  finish(): Recording {
    const times = ({ start, end }: Timed) => ({
      startMicroseconds: this.#microseconds(this.#origin, start),
      durationMicroseconds: this.#microseconds(start, end),
    });
    const beganMicroseconds = this.#hostTimeOf(this.#origin);
    const onHost = ([from, to]: Interval["queued"]) => ({
      startMicroseconds: Number(from) / 1e3 - beganMicroseconds,
      durationMicroseconds: Number(to - from) / 1e3,
    });
    const events = this.#intervals.map(
      ({ name, phase, stream, work, layer, exchange, queued, arenaBytes, ...own }): TraceEvent => ({
        ...{ name, phase, stream, ...times(own), queued: onHost(queued), arenaBytes },
        ...(layer !== undefined && { layer }),
        ...(exchange !== undefined && { exchange }),
        ...work,
      }),
    );
    const spans = this.#spans.map(({ name, kind, ...own }) => ({ name, kind, ...times(own) }));
    const handles = [...this.#intervals, ...this.#spans].flatMap(({ start, end }) => [start, end]);
    for (const event of [this.#origin, ...handles]) this.kernels.call("eventDestroy", event);
    return { events, spans, beganMicroseconds };
  }

  /** When a completed event was, in microseconds of the host's clock; the device must be idle. */
  #hostTimeOf(event: Handle): number {
    let best = { between: Number.POSITIVE_INFINITY, began: 0 };
    for (let look = 0; look < CLOCK_LOOKS; look++) {
      const before = process.hrtime.bigint();
      const now = this.#timestamp("compute");
      this.kernels.call("streamSynchronize", this.streams.compute);
      const after = process.hrtime.bigint();
      const between = Number(after - before) / 1e3;
      const middle = Number(before) / 1e3 + between / 2;
      if (between < best.between) best = { between, began: middle - this.#microseconds(event, now) };
      this.kernels.call("eventDestroy", now);
    }
    return best.began;
  }

  #microseconds(start: Handle, end: Handle): number {
    return this.kernels.create("eventElapsed", start, end) * 1e3;
  }

  #timestamp(stream: StreamName): Handle {
    return timestamp(this.kernels, this.streams[stream]);
  }
}
