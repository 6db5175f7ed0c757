import type { ProfileRank } from "../protocol/results.js";

/**
 * A Chrome trace (Trace Event Format, opens in Perfetto): a process per rank, a thread per stream, times in microseconds.
 * Each rank's clock starts with its own forward.
 */
export function chromeTrace(ranks: readonly ProfileRank[]): { traceEvents: object[]; displayTimeUnit: "ms" } {
  const traceEvents = ranks.flatMap(({ rank, device, trace }) => {
    const streams = [...new Set(trace.map((event) => event.stream))];
    const names = streams.map((stream, tid) => ({
      name: "thread_name",
      ph: "M",
      pid: rank,
      tid,
      args: { name: stream },
    }));
    const events = trace.map((event) => ({
      name: event.name,
      cat: event.phase,
      ph: "X",
      ts: event.startMicroseconds,
      dur: event.durationMicroseconds,
      pid: rank,
      tid: streams.indexOf(event.stream),
    }));
    return [
      { name: "process_name", ph: "M", pid: rank, args: { name: `rank ${rank} (${device})` } },
      ...names,
      ...events,
    ];
  });
  return { traceEvents, displayTimeUnit: "ms" };
}
