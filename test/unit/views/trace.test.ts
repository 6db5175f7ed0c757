import { expect, test } from "vitest";
import { z } from "zod";
import { arrowsOf } from "../../../src/views/trace/arrows.js";
import { chromeTrace, rankTraces } from "../../../src/views/trace/chrome.js";
import { commonClock } from "../../../src/views/trace/clocks.js";
import { gemm, read, send, tracedRank } from "./traced-rank.js";

const facts = { traceName: "dit, plan cp2", epochNanoseconds: 1.7e18 };

test("all ranks of a machine have the best clock that one of them has measured", () => {
  const { starts, beganMicroseconds } = commonClock([tracedRank(0), tracedRank(1)]);
  expect(starts.map(({ startMicroseconds }) => startMicroseconds)).toEqual([0, 100]);
  // Rank 0 has the smaller residual; between ranks of one machine nothing is estimated.
  expect(starts.map(({ offsetMicroseconds }) => offsetMicroseconds)).toEqual([0, 0]);
  expect(starts.map(({ residualMicroseconds }) => residualMicroseconds)).toEqual([0, 0]);
  expect(beganMicroseconds).toBe(1e9);
});

test("ranks of two machines meet on the launcher's clock, as far as it is known", () => {
  const clock = { id: "b", offsetMicroseconds: 1e9 - 5e12 + 250, residualMicroseconds: 40 };
  const far = { ...tracedRank(1), host: "node-b", recordedAtMicroseconds: 5e12, clock };
  const { starts } = commonClock([tracedRank(0), far]);
  expect(starts.map(({ startMicroseconds }) => startMicroseconds)).toEqual([0, 250]);
  expect(starts.map(({ residualMicroseconds }) => residualMicroseconds)).toEqual([10, 40]);
  expect(() => commonClock([{ rank: 7, recordedAtMicroseconds: 0, clock: undefined }])).toThrow("rank 7");
});

test("the n-th message that a rank sends is the n-th that the other waits for", () => {
  const ranks = [tracedRank(0, [send(1), read(1), send(1)]), tracedRank(1, [gemm, send(0), read(0), read(0)])];
  expect(arrowsOf(ranks)).toEqual([
    { from: { rank: 0, event: 0 }, to: { rank: 1, event: 2 } },
    { from: { rank: 0, event: 2 }, to: { rank: 1, event: 3 } },
    { from: { rank: 1, event: 1 }, to: { rank: 0, event: 1 } },
  ]);
  const other = { ...read(0), exchange: { what: "ring", group: "other", ranks: [0, 1], to: [], from: [0] } };
  expect(arrowsOf([tracedRank(0, [send(1)]), tracedRank(1, [other])])).toEqual([]);
});

/** The fields that viewers and Holistic Trace Analysis read, by the event's phase. */
const times = { name: z.string(), pid: z.int(), tid: z.int(), ts: z.number() };
const eventSchema = z.discriminatedUnion("ph", [
  z.strictObject({ ph: z.literal("M"), ...times, args: z.looseObject({}) }),
  z.strictObject({
    ...{ ph: z.literal("X"), ...times, dur: z.number().min(0), args: z.looseObject({}) },
    cat: z.enum([
      "kernel",
      "gpu_memcpy",
      "gpu_memset",
      "cuda_runtime",
      "cpu_op",
      "user_annotation",
      "gpu_user_annotation",
    ]),
  }),
  z.strictObject({ ph: z.literal("s"), ...times, id: z.int(), cat: z.enum(["ac2g", "exchange"]) }),
  z.strictObject({ ph: z.literal("f"), ...times, id: z.int(), cat: z.enum(["ac2g", "exchange"]), bp: z.literal("e") }),
]);
const traceSchema = z.strictObject({
  schemaVersion: z.literal(1),
  deviceProperties: z.array(z.strictObject({ id: z.int(), name: z.string() })),
  distributedInfo: z.strictObject({ backend: z.string(), rank: z.int(), world_size: z.int() }),
  displayTimeUnit: z.literal("ms"),
  baseTimeNanoseconds: z.number(),
  traceName: z.string(),
  clocks: z.array(z.looseObject({ rank: z.int(), residualMicroseconds: z.number() })),
  traceEvents: z.array(eventSchema),
});
const complete = (trace: object, cat: string) =>
  traceSchema.parse(trace).traceEvents.flatMap((event) => (event.ph === "X" && event.cat === cat ? [event] : []));

test("a Chrome trace has a process per rank, a thread per stream, and each launch beside its kernel", () => {
  const ranks = [tracedRank(0, [send(1), gemm]), tracedRank(1, [gemm, read(0)])];
  const trace = chromeTrace(ranks, facts);
  const [first] = complete(trace, "kernel");
  expect(first).toEqual({
    ...{ ph: "X", cat: "kernel", name: "gemm", pid: 0, tid: 1, ts: 5, dur: 7 },
    args: {
      ...{ layer: "blocks.0.mlp.0", shape: "2×3×4 bf16", dtype: "bf16", bytes: 7e3, flops: 14e6 },
      ...{ gigabytesPerSecond: 1, teraflopsPerSecond: 2, device: 0, stream: 1, correlation: 1, phase: "gemm" },
    },
  });
  // Rank 1 began 100 µs later; its launches go on counting.
  expect(complete(trace, "kernel").map(({ ts, pid }) => [pid, ts])).toEqual([
    [0, 5],
    [1, 105],
    [1, 113],
  ]);
  expect(complete(trace, "gpu_memcpy")).toMatchObject([{ tid: 3, args: { "Dst Rank": "1", "Group size": 2 } }]);
  expect(complete(trace, "cuda_runtime").map(({ name, ts, tid, args }) => [name, ts, tid, args.correlation])).toEqual([
    ["cudaMemcpyAsync", 1, 0, 0],
    ["cudaLaunchKernel", 1, 0, 1],
    ["cudaLaunchKernel", 101, 0, 2],
    ["cudaLaunchKernel", 101, 0, 3],
  ]);
  expect(complete(trace, "gpu_user_annotation").map(({ name, ts, dur, tid }) => [name, ts, dur, tid])).toEqual([
    ["blocks.0", 4, 9, 1],
    ["blocks.0", 104, 9, 1],
  ]);
  expect(complete(trace, "cpu_op").map(({ name, ts, dur, pid }) => [pid, name, ts, dur])).toEqual([
    [0, "blocks.0.mlp.0", 1, 2],
    [1, "blocks.0.mlp.0", 101, 2],
    [1, "blocks.0.attn", 101, 2],
  ]);
  const { traceEvents, baseTimeNanoseconds, deviceProperties } = traceSchema.parse(trace);
  expect(baseTimeNanoseconds).toBe(1.7e18 + 1e12);
  expect(deviceProperties).toHaveLength(2);
  const names = traceEvents.flatMap((event) =>
    event.ph === "M" && event.name === "thread_name" ? [event.args.name] : [],
  );
  expect(names).toEqual(["host", "compute", "copy", "host", "compute"]);
  // From the middle of the copy to the launch that waits for it; every number stands for one arrow.
  const arrows = traceEvents.flatMap((event) => ("id" in event && event.cat === "exchange" ? [event] : []));
  expect(arrows).toMatchObject([
    { ph: "s", name: "ring", id: 4, pid: 0, tid: 3, ts: 8 },
    { ph: "f", bp: "e", id: 4, pid: 1, tid: 1, ts: 113 },
  ]);
});

test("stages and steps are around what is within them, on the host's thread", () => {
  const rank = tracedRank(0);
  rank.spans.unshift(
    { name: "sample", kind: "stage", startMicroseconds: -50, durationMicroseconds: 100 },
    { name: "step 2", kind: "step", startMicroseconds: -5, durationMicroseconds: 40 },
  );
  const spans = complete(chromeTrace([rank], facts), "user_annotation");
  expect(spans.map(({ name, tid, ts, dur }) => [name, tid, ts, dur])).toEqual([
    ["sample", 0, -50, 100],
    ["step 2", 0, -5, 40],
  ]);
  const [file] = rankTraces([rank], facts);
  expect(complete(file?.trace ?? {}, "user_annotation").map(({ name }) => name)).toEqual(["sample", "ProfilerStep#2"]);
});

test("a file for each rank is in the names that Holistic Trace Analysis knows", () => {
  const sum = { ...gemm, name: "peerSum", phase: "communication" } as const;
  const zero = { ...gemm, name: "fillZero", phase: "elementwise" } as const;
  const files = rankTraces([tracedRank(0, [send(1), sum, zero]), tracedRank(1, [read(0)])], facts);
  expect(files.map(({ name }) => name)).toEqual(["rank_0.json", "rank_1.json"]);
  const [first, second] = files.map(({ trace }) => traceSchema.parse(trace));
  expect([first?.distributedInfo, second?.distributedInfo]).toEqual([
    { backend: "ditrun", rank: 0, world_size: 2 },
    { backend: "ditrun", rank: 1, world_size: 2 },
  ]);
  expect(complete(files[0]?.trace ?? {}, "kernel").map(({ name }) => name)).toEqual(["ncclKernel_peerSum"]);
  expect(complete(files[0]?.trace ?? {}, "gpu_memcpy").map(({ name }) => name)).toEqual(["Memcpy DtoD (copy)"]);
  expect(complete(files[0]?.trace ?? {}, "gpu_memset").map(({ name }) => name)).toEqual(["Memset (fillZero)"]);
  // Correlations are above 0, and one step is around all.
  expect(complete(files[1]?.trace ?? {}, "kernel").map(({ args }) => args.correlation)).toEqual([1]);
  const [step] = complete(files[1]?.trace ?? {}, "user_annotation");
  expect(step).toMatchObject({ name: "ProfilerStep#1", ts: 100, dur: 33 });
});
