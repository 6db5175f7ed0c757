import { expect, test } from "vitest";
import { phaseNames, type TraceEvent } from "../../../src/protocol/results.js";
import { kernelTable } from "../../../src/views/kernel-report.js";
import { deviceDtypes } from "../../../src/worker/runtime/abi.js";
import { workOf } from "../../../src/worker/runtime/work.js";
import { kernelTotals, phasesOf } from "../../../src/worker/tasks/profile.js";

const { fp32, bf16, e4m3 } = deviceDtypes;
const none = { residualStride: 0, aStride: 0, wStride: 0, biasStride: 0, outStride: 0, lda: 0, ldw: 0, ldo: 0 };
const gemm = {
  ...{
    ...none,
    a: 1,
    w: 1,
    bias: 1,
    residual: 1,
    out: 1,
    gate: 0,
    outScale: 0,
    aScale: 0,
    wScale: 0,
    ldResidual: 0,
    alpha: 1,
    activation: 0,
    kernel: 0,
    aScaleColumns: 0,
  },
  ...{ m: 10, n: 20, k: 30, batch: 3, dtype: bf16, outDtype: fp32, biasDtype: fp32, residualDtype: fp32 },
};

test("a product's work: its operations, and each matrix once", () => {
  const bytes = (10 * 30 + 3 * 20 * 30) * 2 + 3 * 10 * 20 * (4 + 4);
  expect(workOf("gemm", [gemm, 0])).toEqual({ flops: 2 * 3 * 6000, bytes, dtype: "bf16", shape: "10×3·20×30 bf16" });
  expect(workOf("gemm", [{ ...gemm, batch: 1, residual: 0, dtype: e4m3 }, 0])).toMatchObject({
    ...{ bytes: 10 * 30 + 20 * 30 + 10 * 20 * 4, dtype: "e4m3", shape: "10×20×30 e4m3" },
  });
});

test("elementwise work: a pass over each tensor", () => {
  expect(workOf("addGated", [1, 2, fp32, 3, bf16, 4, 5, 7, 0])).toMatchObject({ flops: 0, bytes: 35 * (4 + 4 + 2) });
  expect(workOf("addRows", [1, 2, 0, 3, 5, 7, bf16, 0])).toMatchObject({ bytes: 35 * 4 });
  expect(workOf("sum", [1, 0, 0, 7, [1, 2, 3], 3, 35, fp32, bf16, 0])).toMatchObject({ bytes: 35 * (4 + 6) });
  expect(workOf("flagsWait", [[1], 1, 1, 0])).toMatchObject({ flops: 0, bytes: 0 });
});

const event: TraceEvent = {
  ...{ name: "gemm", phase: "gemm", stream: "compute", shape: "a", dtype: "bf16" },
  ...{ startMicroseconds: 0, durationMicroseconds: 500, flops: 1e11, bytes: 1e8 },
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
  const table = kernelTable({ rank: 3, kernels });
  expect(table).toContain("rank 3, compute stream");
  expect(table).toMatch(/ {3}gemm a +│ +1 │ +0\.5000 │ +200\.0 │ +200\.0 │ +0\.1000 │ +20\.0 %/);
  expect(table).toMatch(/all +│ +2 │ +0\.6000 │ +166\.7 │ +333\.3 │ +0\.1250 │ +20\.8 %/);
});

test("kernels below a five-hundredth are one row; a peak that is not known leaves the sum's place empty", () => {
  const small = (shape: string): TraceEvent => ({ ...event, shape, durationMicroseconds: 0.5 });
  const medium = { ...event, shape: "b", durationMicroseconds: 5 };
  const kernels = kernelTotals([event, medium, small("c"), small("d")], peaks, 0);
  const table = kernelTable({ rank: 0, kernels });
  expect(table).toMatch(/ {3}gemm b +│ +1 │/);
  expect(table).toMatch(/ {3}2 smaller +│ +2 │/);
  expect(table).not.toContain("gemm c");
  const unknown = kernels.map((kernel, index) => (index === 1 ? { ...kernel, roofMs: null } : kernel));
  expect(kernelTable({ rank: 0, kernels: unknown })).toMatch(/all +│ +4 │ +[\d.]+ │ +[\d.]+ │ +[\d.]+ │ +│ +│/);
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
  expect(kernelTable({ rank: 0, kernels: totals })).toMatch(/attention's waits for the ring's blocks +│ +│ +0\.4000 │/);
});
