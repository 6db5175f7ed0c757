import type { TraceEvent, TraceRank, TraceSpan } from "../../protocol/results.js";
import { arrowsOf } from "./arrows.js";
import { commonClock } from "./clocks.js";

/** Threads of a rank's process: its host thread, then its streams. Numbers of streams are above 0, as readers of CUDA's traces expect. */
const lanes: readonly string[] = ["host", "compute", "aside", "copy"];
const laneOf = (stream: string) => lanes.indexOf(stream);

const copies = ["copy", "copy2d"];

/** What a reader of PyTorch's traces takes an event for. */
function categoryOf({ name }: TraceEvent): "kernel" | "gpu_memcpy" | "gpu_memset" {
  return copies.includes(name) ? "gpu_memcpy" : name === "fillZero" ? "gpu_memset" : "kernel";
}

const callOf = { kernel: "cudaLaunchKernel", gpu_memcpy: "cudaMemcpyAsync", gpu_memset: "cudaMemsetAsync" } as const;

/** Nanoseconds are all that clocks tell. */
const rounded = (microseconds: number) => Math.round(microseconds * 1e3) / 1e3;

/** What a viewer shows beside the chart when an event is selected. */
function argumentsOf({ shape, dtype, layer, flops, bytes, durationMicroseconds, exchange }: TraceEvent): object {
  const over = (work: number, unit: number) => (durationMicroseconds > 0 ? work / (durationMicroseconds * unit) : 0);
  return {
    ...(layer !== undefined && { layer }),
    ...(shape !== "" && { shape }),
    ...(dtype !== undefined && { dtype }),
    ...(bytes > 0 && { bytes, gigabytesPerSecond: over(bytes, 1e3) }),
    ...(flops > 0 && { flops, teraflopsPerSecond: over(flops, 1e6) }),
    ...(exchange && {
      "Collective name": exchange.what,
      "Process Group Name": exchange.group,
      "Process Group Ranks": JSON.stringify(exchange.ranks),
      "Group size": exchange.ranks.length,
      ...(exchange.to.length > 0 && { "Dst Rank": exchange.to.join(", ") }),
      ...(exchange.from.length > 0 && { "Src Rank": exchange.from.join(", ") }),
    }),
  };
}

/** Runs of launches of one layer, as the host queued them. */
function layersOf(trace: readonly TraceEvent[]) {
  const runs: { name: string; startMicroseconds: number; endMicroseconds: number }[] = [];
  let before: string | undefined;
  for (const { layer, queued } of trace) {
    const endMicroseconds = queued.startMicroseconds + queued.durationMicroseconds;
    const last = runs.at(-1);
    if (layer !== undefined && layer === before && last) last.endMicroseconds = endMicroseconds;
    else if (layer !== undefined) {
      runs.push({ name: layer, startMicroseconds: queued.startMicroseconds, endMicroseconds });
    }
    before = layer;
  }
  return runs;
}

export interface TraceFacts {
  readonly traceName: string;
  /** Unix time in nanoseconds at which the launcher's CLOCK_MONOTONIC was 0. */
  readonly epochNanoseconds: number;
}

/** An event, and what it is called where that is not its name. */
type Called = TraceEvent & { readonly called?: string };
type Told = Omit<TraceRank, "trace"> & { readonly trace: readonly Called[] };

/** What all files of a trace begin with, in the words of PyTorch's profiler (Kineto's output_json.cpp). */
function headOf(ranks: readonly Told[], { traceName, epochNanoseconds }: TraceFacts, ofRank?: number) {
  const { starts, beganMicroseconds } = commonClock(ranks);
  const clocks = ranks.map(({ rank, host }, index) => ({ rank, host, ...starts[index] }));
  return {
    schemaVersion: 1,
    deviceProperties: ranks
      .filter(({ rank }) => ofRank === undefined || rank === ofRank)
      .map(({ rank, device }) => ({ id: rank, name: device })),
    distributedInfo: { backend: "ditrun", rank: ofRank ?? 0, world_size: ranks.length },
    displayTimeUnit: "ms" as const,
    baseTimeNanoseconds: Math.round(epochNanoseconds + beganMicroseconds * 1e3),
    traceName,
    /** How each rank's clock was brought to the launcher's, and how far that may be from right. */
    clocks,
  };
}

/** One rank's events. @param offset of its times. @param first number of its launches, which are counted through all ranks. */
function eventsOf({ rank, device, host, trace, spans }: Told, offset: number, first: number): object[] {
  const complete = (lane: number, { name, startMicroseconds, durationMicroseconds }: Omit<TraceSpan, "kind">) => ({
    ...{ ph: "X", name, pid: rank, tid: lane },
    ...{ ts: rounded(offset + startMicroseconds), dur: rounded(durationMicroseconds) },
  });
  const meta = (name: string, args: object, tid = 0) => ({ ph: "M", name, pid: rank, tid, ts: 0, args });
  const used = lanes
    .map((lane, tid) => ({ lane, tid }))
    .filter(({ lane, tid }) => tid === 0 || trace.some(({ stream }) => stream === lane));
  const launches = trace.flatMap((event, index) => {
    const correlation = first + index;
    const cat = categoryOf(event);
    const stream = laneOf(event.stream);
    const call = complete(0, { name: callOf[cat], ...event.queued });
    const run = complete(stream, { ...event, name: event.called ?? event.name });
    return [
      { ...call, cat: "cuda_runtime", args: { correlation, "External id": correlation } },
      { ...run, cat, args: { ...argumentsOf(event), device: rank, stream, correlation, phase: event.phase } },
      { ph: "s", cat: "ac2g", name: "ac2g", id: correlation, pid: rank, tid: 0, ts: call.ts },
      { ph: "f", bp: "e", cat: "ac2g", name: "ac2g", id: correlation, pid: rank, tid: stream, ts: run.ts },
    ];
  });
  return [
    meta("process_name", { name: `rank ${rank} (${device}, ${host})` }),
    meta("process_sort_index", { sort_index: rank }),
    ...used.flatMap(({ lane, tid }) => [
      meta("thread_name", { name: lane }, tid),
      meta("thread_sort_index", { sort_index: tid }, tid),
    ]),
    // What is around others stands before them: both may begin at once.
    ...spans.map((span) =>
      span.kind === "stage" || span.kind === "step"
        ? { ...complete(0, span), cat: "user_annotation", args: { kind: span.kind } }
        : { ...complete(laneOf("compute"), span), cat: "gpu_user_annotation", args: { kind: span.kind } },
    ),
    ...layersOf(trace).map(({ name, startMicroseconds, endMicroseconds }) => ({
      ...complete(0, { name, startMicroseconds, durationMicroseconds: endMicroseconds - startMicroseconds }),
      cat: "cpu_op",
      args: {},
    })),
    ...launches,
  ];
}

/**
 * A Chrome trace (Trace Event Format, opens in Perfetto) of all ranks on one clock: a process per rank, a thread for its host and
 * for each stream, times in microseconds. Arrows lead from launches that send to launches that wait for it.
 */
export function chromeTrace(ranks: readonly Told[], facts: TraceFacts): object & { traceEvents: object[] } {
  const { starts } = commonClock(ranks);
  const startOf = (index: number) => starts[index]?.startMicroseconds ?? 0;
  const all = ranks.reduce((sum, { trace }) => sum + trace.length, 0);
  let first = 0;
  const events = ranks.flatMap((rank, index) => {
    const own = eventsOf(rank, startOf(index), first);
    first += rank.trace.length;
    return own;
  });
  const places = new Map(ranks.map((rank, index) => [rank.rank, { rank, offset: startOf(index) }]));
  const at = ({ rank, event }: { rank: number; event: number }) => {
    const place = places.get(rank);
    const found = place?.rank.trace[event];
    if (!place || !found) throw new RangeError(`Rank ${rank} has no event ${event}.`);
    const start = place.offset + found.startMicroseconds;
    return {
      start,
      end: start + found.durationMicroseconds,
      pid: rank,
      tid: laneOf(found.stream),
      what: found.exchange?.what,
    };
  };
  const arrows = arrowsOf(ranks).flatMap(({ from, to }, index) => {
    const [sender, receiver] = [at(from), at(to)];
    const common = { cat: "exchange", name: sender.what ?? "exchange", id: all + index };
    // A message is there when its sending ends; who waits for it may have begun before.
    const arrival = Math.min(Math.max(receiver.start, sender.end), receiver.end);
    return [
      { ...common, ph: "s", pid: sender.pid, tid: sender.tid, ts: rounded((sender.start + sender.end) / 2) },
      { ...common, ph: "f", bp: "e", pid: receiver.pid, tid: receiver.tid, ts: rounded(arrival) },
    ];
  });
  return { ...headOf(ranks, facts), traceEvents: [...events, ...arrows] };
}

/** Names by which Holistic Trace Analysis tells kinds of kernels apart: their beginning. The true name stands behind it. */
function analysedName(event: TraceEvent): string {
  const cat = categoryOf(event);
  if (cat === "gpu_memcpy") return `Memcpy DtoD (${event.name})`;
  if (cat === "gpu_memset") return `Memset (${event.name})`;
  return event.phase === "communication" ? `ncclKernel_${event.name}` : event.name;
}

/** Steps as it finds them: by the name `ProfilerStep#N`. A forward without any is one. */
function analysedSpans({ spans, trace }: Told): TraceSpan[] {
  const named = spans.map((span) =>
    span.kind === "step" ? { ...span, name: span.name.replace(/^step /, "ProfilerStep#") } : span,
  );
  if (named.some(({ kind }) => kind === "step")) return named;
  const ends = trace.flatMap(({ startMicroseconds, durationMicroseconds, queued }) => [
    startMicroseconds + durationMicroseconds,
    queued.startMicroseconds + queued.durationMicroseconds,
  ]);
  const startMicroseconds = Math.min(0, ...trace.map(({ queued }) => queued.startMicroseconds));
  const durationMicroseconds = Math.max(0, ...ends) - startMicroseconds;
  return [{ name: "ProfilerStep#1", kind: "step", startMicroseconds, durationMicroseconds }, ...named];
}

/** The same, a file for each rank as Holistic Trace Analysis reads them: in its names, and without arrows between ranks. */
export function rankTraces(ranks: readonly Told[], facts: TraceFacts): { name: string; trace: object }[] {
  const { starts } = commonClock(ranks);
  return ranks.map((rank, index) => {
    const spans = analysedSpans(rank);
    const trace = rank.trace.map((event) => ({ ...event, called: analysedName(event) }));
    const traceEvents = eventsOf({ ...rank, trace, spans }, starts[index]?.startMicroseconds ?? 0, 1);
    return { name: `rank_${rank.rank}.json`, trace: { ...headOf(ranks, facts, rank.rank), traceEvents } };
  });
}
