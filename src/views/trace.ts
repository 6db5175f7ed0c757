import type { ProfileRank, TraceEvent } from "../protocol/results.js";

/** In the order in which a viewer shows them. */
const streams = ["compute", "aside", "copy"];

/** What a viewer shows beside the chart when an event is selected. */
function argumentsOf({ shape, dtype, layer, flops, bytes, durationMicroseconds }: TraceEvent): object {
  const over = (work: number, unit: number) => (durationMicroseconds > 0 ? work / (durationMicroseconds * unit) : 0);
  return {
    ...(layer !== undefined && { layer }),
    ...(shape !== "" && { shape }),
    ...(dtype !== undefined && { dtype }),
    ...(bytes > 0 && { bytes, gigabytesPerSecond: over(bytes, 1e3) }),
    ...(flops > 0 && { flops, teraflopsPerSecond: over(flops, 1e6) }),
  };
}

/**
 * A Chrome trace (Trace Event Format, opens in Perfetto): a process per rank, a thread per stream, times in microseconds. Blocks
 * are events around those of their kernels. All ranks of a host have one clock, which begins with the first of their forwards.
 */
export function chromeTrace(ranks: readonly ProfileRank[]): { traceEvents: object[]; displayTimeUnit: "ms" } {
  const began = new Map<string, number>();
  for (const { host, recordedAtMicroseconds } of ranks) {
    began.set(host, Math.min(began.get(host) ?? Number.POSITIVE_INFINITY, recordedAtMicroseconds));
  }
  const traceEvents = ranks.flatMap(({ rank, device, host, recordedAtMicroseconds, trace, spans }) => {
    const offset = recordedAtMicroseconds - (began.get(host) ?? recordedAtMicroseconds);
    const own = [...new Set(trace.map((event) => event.stream))].sort((a, b) => orderOf(a) - orderOf(b));
    const complete = (stream: string, name: string, startMicroseconds: number, durationMicroseconds: number) => ({
      ...{ name, ph: "X", ts: offset + startMicroseconds, dur: durationMicroseconds },
      ...{ pid: rank, tid: own.indexOf(stream) },
    });
    const meta = (name: string, args: object, tid?: number) => ({
      ...{ name, ph: "M", pid: rank, args },
      ...(tid !== undefined && { tid }),
    });
    return [
      meta("process_name", { name: `rank ${rank} (${device}, ${host})` }),
      meta("process_sort_index", { sort_index: rank }),
      ...own.flatMap((stream, tid) => [
        meta("thread_name", { name: stream }, tid),
        meta("thread_sort_index", { sort_index: tid }, tid),
      ]),
      // A block stands before its kernels, which begin when it does at the earliest.
      ...spans.map(({ name, startMicroseconds, durationMicroseconds }) => ({
        ...complete("compute", name, startMicroseconds, durationMicroseconds),
        cat: "block",
      })),
      ...trace.map((event) => ({
        ...complete(event.stream, event.name, event.startMicroseconds, event.durationMicroseconds),
        cat: event.phase,
        args: argumentsOf(event),
      })),
    ];
  });
  return { traceEvents, displayTimeUnit: "ms" };
}

const orderOf = (stream: string) => (streams.includes(stream) ? streams.indexOf(stream) : streams.length);
