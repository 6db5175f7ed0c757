import { describe, expect, test } from "vitest";
import { accuracyTable, compareOutputs } from "../../src/launcher/accuracy-report.js";
import { loadDitModel } from "../../src/launcher/model.js";
import { type PlanFlags, planTitle, resolvePlan } from "../../src/launcher/plan.js";
import { profileTable, summarizeProfile } from "../../src/launcher/profile-report.js";
import { difference, percentile } from "../../src/launcher/statistics.js";
import { chromeTrace } from "../../src/launcher/trace.js";
import { decodeZ85 } from "../../src/launcher/zap.js";
import type { ProfileTask } from "../../src/protocol/job.js";
import { planSchema } from "../../src/protocol/plan.js";
import type { ProfileRank } from "../../src/protocol/results.js";

const model = await loadDitModel("dit");
const plan = { ...planSchema.parse({ mesh: { cp: 2 } }), name: "two" };
const task: ProfileTask = {
  kind: "profile",
  model,
  plan,
  weights: { from: "random", seed: 0 },
  seed: 0,
  warmup: 1,
  iterations: 2,
  trace: true,
};

function rank(index: number, latenciesMs: number[]): ProfileRank {
  return {
    rank: index,
    device: "NVIDIA H200",
    latenciesMs,
    recordedMs: 12 + index,
    phases: { attention: 6 + index, gemm: 3, elementwise: 1, communication: 0 },
    ringWaitsMs: [0, 2],
    kernels: [],
    peakMemoryBytes: (index + 1) * 2 ** 30,
    modelFlops: 4e12,
    peakTflops: 1000,
    trace: [
      {
        name: "gemm",
        phase: "gemm",
        stream: "compute",
        startMicroseconds: 5,
        durationMicroseconds: 7,
        flops: 14e6,
        bytes: 7e3,
        dtype: "bf16",
        shape: "2×3×4 bf16",
      },
    ],
  };
}

test("percentiles interpolate between order statistics", () => {
  expect(percentile([4, 1, 3, 2], 0.5)).toBe(2.5);
  expect(percentile([10, 20, 30], 0.1)).toBeCloseTo(12);
  expect(percentile([7], 0.9)).toBe(7);
});

describe("a profile", () => {
  test("takes the slowest rank of each forward; a shared GPU has one peak", () => {
    const ranks = [rank(0, [10, 40]), rank(1, [20, 30])];
    const shared = summarizeProfile(task, ranks, { device: "cuda", kernels: "k.so", count: 1 });
    expect(shared.latencyMs).toEqual({ median: 30, p10: 22, p90: 38 });
    expect(shared.throughput).toBeCloseTo(1000 / 30);
    expect(shared.tflops).toBeCloseTo(4 / 0.03);
    expect(shared.peakShare).toBeCloseTo(4 / 0.03 / 1000);
    expect(shared.throughputPerSecond).toBe(shared.throughput);
    expect(shared.phases.attention).toBe(6.5);
    expect(shared.phasesMs).toEqual(shared.phases);
    expect([shared.recordedMs, shared.ranks[0]?.recordedMs]).toEqual([13, 12]);
    expect(shared.ranks[1]).toMatchObject({ rank: 1, latencyMs: { median: 25 } });
    const own = summarizeProfile(task, ranks, { device: "cuda", kernels: "k.so", count: 8 });
    expect(own.peakShare).toBeCloseTo(4 / 0.03 / 2000);
    const table = profileTable(own);
    expect(table).toContain("dit, plan two (bf16), 2 workers, NVIDIA H200; 2 timed and 1 warm-up forwards");
    expect(table).toContain("Phases and kernels are of one more forward");
    expect(table).toContain("it took 13.00 ms on the slowest rank.");
    expect(table).toMatch(/all +│ +30\.00 │ +22\.00 │ +38\.00 │ +133\.3 │ +6\.7 %/);
  });

  test("names a plan's dtypes once", async () => {
    const named = (flags: PlanFlags) => resolvePlan(flags, model, undefined, 1).then(planTitle);
    expect(await named({ cp: 4, tp: 2, dtype: "bf16" })).toBe("plan cp4×tp2 (bf16)");
    expect(await named({ cp: 2, dtype: "bf16", fp8: true })).toBe("plan cp2 (bf16, e4m3 linear + attention + ring)");
    expect(await named({ plan: "cp8" })).toBe("plan cp8 (bf16)");
  });

  test("becomes a Chrome trace: a process per rank, a thread per stream", () => {
    const { traceEvents } = chromeTrace([rank(0, [1]), rank(1, [1])]);
    expect(traceEvents).toContainEqual({ name: "gemm", cat: "gemm", ph: "X", ts: 5, dur: 7, pid: 1, tid: 0 });
    expect(traceEvents).toContainEqual({ name: "thread_name", ph: "M", pid: 1, tid: 0, args: { name: "compute" } });
  });
});

describe("accuracy", () => {
  const tensor = (...values: number[]) => ({ shape: [values.length], data: Float32Array.from(values) });

  test("differences are taken in float64", () => {
    const apart = difference(Float32Array.of(1, 2, 3, 8), Float32Array.of(1, 1, 3, 5));
    expect(apart).toEqual({ meanAbs: 1, maxAbs: 3, stdAbs: Math.sqrt(1.5), relL2: Math.sqrt(10 / 36) });
    expect(difference(Float32Array.of(0, 1), Float32Array.of(0, 0)).relL2).toBe(Number.POSITIVE_INFINITY);
  });

  test.each([
    ["fp32", {}, 1e-5],
    ["bf16", {}, 0.02],
    ["fp32", { linear: { dtype: "e4m3" } }, 0.1],
    ["bf16", { attention: { dtype: "e4m3" } }, 0.1],
  ] as const)("%s with %j is held to %s", (dtype, parts, tolerance) => {
    const some = { ...planSchema.parse({ dtype, ...parts }), name: "some" };
    const expected = tensor(1, 0, 0, 0);
    expect(compareOutputs(some, tensor(1, tolerance * 0.99, 0, 0), expected).pass).toBe(true);
    expect(compareOutputs(some, tensor(1, tolerance * 1.01, 0, 0), expected).pass).toBe(false);
  });

  test("values that are not finite are counted and never pass", () => {
    const result = compareOutputs(plan, tensor(1, Number.NaN, Number.POSITIVE_INFINITY), tensor(1, 1, 1));
    expect(result).toMatchObject({ pass: false, nonFinite: 2, relL2: null });
    expect(accuracyTable([result], "one device")).toContain(
      "The output of plan two holds 2 values that are NaN or infinite.",
    );
    expect(() => compareOutputs(plan, tensor(1), tensor(Number.NaN))).toThrow("nothing can be compared with it");
    expect(() => compareOutputs(plan, tensor(1), tensor(1, 2))).toThrow("has shape [1], the reference [2]");
  });
});

test("Z85 decodes the example of its specification", () => {
  expect(decodeZ85("HelloWorld").toString("hex")).toBe("864fd26fb559f75b");
});
