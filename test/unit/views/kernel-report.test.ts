import { expect, test } from "vitest";
import { phaseNames, type TraceEvent } from "../../../src/protocol/results.js";
import { kernelTable } from "../../../src/views/kernel-report.js";
import { plainPage } from "../../../src/views/page.js";
import { kernelTotals, phasesOf } from "../../../src/worker/tasks/profile.js";

const event: TraceEvent = {
  ...{ name: "gemm", phase: "gemm", stream: "compute", shape: "a", dtype: "bf16" },
  ...{ startMicroseconds: 0, durationMicroseconds: 500, flops: 1e11, bytes: 1e8, arenaBytes: 0 },
  queued: { startMicroseconds: 0, durationMicroseconds: 1 },
};
const peaks = { peakTflops: { f32: 50, bf16: 1000, e4m3: 2000 }, peakGBs: 4000 };

test("kernels are summed by shape, against the slower of arithmetic and memory", () => {
  const slow = { ...event, bytes: 1.6e9, durationMicroseconds: 900 };
  const totals = kernelTotals([event, slow, { ...event, stream: "copy" }, { ...event, shape: "b" }], peaks, 0);
  // 100 GFLOP at 1 PFLOP/s take 0.1 ms, 1.6 GB at 4 TB/s 0.4 ms.
  expect(totals.map(({ shape, launches, milliseconds, roofMs }) => [shape, launches, milliseconds, roofMs])).toEqual([
    ["a", 2, 1.4, expect.closeTo(0.5)],
    ["b", 1, 0.5, expect.closeTo(0.1)],
  ]);
  expect(kernelTotals([event], { ...peaks, peakGBs: null }, 0)[0]?.roofMs).toBeNull();
});

test("the table has a row for each phase, each kernel and all", () => {
  const kernels = kernelTotals(
    [event, { ...event, name: "add", phase: "elementwise", shape: "9", flops: 0, durationMicroseconds: 100 }],
    peaks,
    0,
  );
  const table = kernelTable(plainPage, { rank: 3, kernels, recordedMs: 0.8 });
  expect(table).toContain("on rank 3 by kernel, on the compute stream");
  expect(table).toMatch(/^ {2}gemm a +1 +0\.5000 +62\.5 % +200\.0 +200\.0 +0\.1000 +20\.0 %$/m);
  // What passed between kernels is a row, so that the rows add up to the forward.
  expect(table).toMatch(/^idle +0\.2000 +25\.0 %$/m);
  expect(table).toMatch(/^forward +2 +0\.8000 +100\.0 % +125\.0 +250\.0 +0\.1250 +15\.6 %$/m);
});

test("kernels below a five-hundredth are one row; a peak that is not known leaves the sum's place empty", () => {
  const small = (shape: string): TraceEvent => ({ ...event, shape, durationMicroseconds: 0.5 });
  const medium = { ...event, shape: "b", durationMicroseconds: 5 };
  const kernels = kernelTotals([event, medium, small("c"), small("d")], peaks, 0);
  const table = kernelTable(plainPage, { rank: 0, kernels, recordedMs: 0.506 });
  expect(table).toMatch(/^ {2}gemm b +1 /m);
  expect(table).toMatch(/^ {2}2 smaller +2 /m);
  expect(table).not.toContain("gemm c");
  const unknown = kernels.map((kernel, index) => (index === 1 ? { ...kernel, roofMs: null } : kernel));
  expect(kernelTable(plainPage, { rank: 0, kernels: unknown, recordedMs: 0.506 })).toMatch(
    /^forward +4 +[\d.]+ +100\.0 % +[\d.]+ +[\d.]+$/m,
  );
  const nowhere = kernels.map((kernel) => ({ ...kernel, roofMs: null }));
  expect(kernelTable(plainPage, { rank: 0, kernels: nowhere, recordedMs: 0.506 })).not.toContain("peak");
});

test("attention's waits for the ring are communication in the kernel table as in the phases", () => {
  const attention: TraceEvent = {
    ...event,
    name: "attention",
    phase: "attention",
    durationMicroseconds: 300,
    waits: true,
  };
  const text = { ...attention, shape: "to the text", waits: false };
  const gather: TraceEvent = { ...event, name: "peerGather", phase: "communication", shape: "9" };
  const trace = [attention, attention, text, gather, event];
  const totals = kernelTotals(trace, peaks, 0.4);
  const phases = phasesOf(trace, 0.4);
  for (const phase of phaseNames) {
    const own = totals.filter((total) => total.phase === phase);
    expect(own.reduce((sum, { milliseconds }) => sum + milliseconds, 0)).toBeCloseTo(phases[phase]);
  }
  expect(phases.attention).toBeCloseTo(0.5);
  expect(phases.communication).toBeCloseTo(0.9);
  expect(totals.find(({ shape }) => shape === "to the text")?.milliseconds).toBeCloseTo(0.3);
  const table = kernelTable(plainPage, { rank: 0, kernels: totals, recordedMs: 2 });
  expect(table).toMatch(/^ {2}attention's waits for the ring's blocks +0\.4000$/m);
});
