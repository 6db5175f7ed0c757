import { describe, expect, test } from "vitest";
import { decodeZ85 } from "../../../src/launcher/rendezvous/zap.js";
import { loadDitModel } from "../../../src/models/load.js";
import { planTitle } from "../../../src/plan/names.js";
import { type PlanFlags, resolvePlan } from "../../../src/plan/resolve.js";
import { planSchema } from "../../../src/plan/schema.js";
import type { ProfileTask } from "../../../src/protocol/job.js";
import type { ProfileRank } from "../../../src/protocol/results.js";
import { accuracyTable, compareOutputs } from "../../../src/views/accuracy-report.js";
import { plainPage } from "../../../src/views/page.js";
import { profileTable, summarizeProfile } from "../../../src/views/profile-report.js";
import { difference, percentile } from "../../../src/views/statistics.js";
import { tokenDifferences } from "../../../src/views/token-differences.js";

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
    peakGBs: 4800,
    trace: [],
    spans: [],
    memory: [],
    host: "node-a",
    recordedAtMicroseconds: 1e9 + 100 * index,
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
    // Half of the work each.
    expect(shared.ranks[1]?.tflops).toBeCloseTo(2 / 0.025);
    expect(shared.ranks[1]?.peakShare).toBeCloseTo(2 / 0.025 / 1000);
    const own = summarizeProfile(task, ranks, { device: "cuda", kernels: "k.so", count: 8 });
    expect(own.peakShare).toBeCloseTo(4 / 0.03 / 2000);
    const table = profileTable(plainPage, own);
    expect(table).toContain("dit, plan two (bf16), 2 workers, NVIDIA H200\n");
    expect(table).toContain("Timed: 2 forwards after 1 to warm up, 33.33 images/s");
    expect(table).toMatch(/^all +30\.00 +22\.00 +38\.00 +133\.3 +6\.7 % +2\.00$/m);
    // The parts add up: 6 + 3 + 1 + 0 and 2 of nothing are the 12 ms of rank 0's recorded forward.
    expect(table).toMatch(/^rank +forward ms +attention ms|^rank +ms +attention/m);
    expect(table).toMatch(/^0 +12\.00 +6\.00 +3\.00 +1\.00 +0\.0 +2\.00 +2\.00$/m);
    expect(table).toMatch(/^all +12\.50 +6\.50 +3\.00 +1\.00 +0\.0 +2\.00 +2\.00$/m);
    expect(table).toContain("which is not one of those timed: 13.00 ms on the slowest rank, timed 30.00 ms.");
  });

  test("shows the least and the most of many ranks, in 80 columns, and no peak that is not known", () => {
    const ranks = Array.from({ length: 20 }, (_, index) => ({ ...rank(index, [100 + index]), peakTflops: null }));
    const summary = summarizeProfile({ ...task, iterations: 1 }, ranks, { device: "cuda", kernels: "k.so", count: 20 });
    const table = profileTable(plainPage, summary);
    expect(table).toMatch(/^least +100\.0 /m);
    expect(table).toMatch(/^most +119\.0 /m);
    expect(table).not.toMatch(/^7 /m);
    expect(table).not.toContain("peak");
    const rows = table.split("\n").filter((line) => /^(?:rank|least|most|all {2})/.test(line));
    expect(Math.max(...rows.map((line) => line.length))).toBeLessThan(81);
  });

  test("names a plan's dtypes once", async () => {
    const named = (flags: PlanFlags) => resolvePlan(flags, model, undefined, 1).then(planTitle);
    expect(await named({ cp: 4, tp: 2, dtype: "bf16" })).toBe("plan cp4×tp2 (bf16)");
    expect(await named({ cp: 2, dtype: "bf16", fp8: true })).toBe("plan cp2 (bf16, e4m3 linear + attention + ring)");
    expect(await named({ plan: "cp8" })).toBe("plan cp8 (bf16)");
  });
});

describe("accuracy", () => {
  // 32 tokens of one value: two in each of 16 regions.
  const model = { ...task.model, imageSize: 8, channels: 1, patch: 1, width: 4, heads: 1 };
  const shape = [1, 1, 4, 8];
  const output = (value: (token: number) => number) => ({
    shape,
    data: Float32Array.from({ length: 32 }, (_, i) => value(i)),
  });
  const ones = output(() => 1);
  const planOf = (dtype: "fp32" | "bf16", parts: object = {}) => ({
    ...planSchema.parse({ dtype, ...parts }),
    name: "some",
  });
  const compare = (
    some: ReturnType<typeof planOf>,
    actual: typeof ones,
    comparison: "layout" | "arithmetic" = "layout",
  ) => compareOutputs(model, some, comparison, actual, ones);

  test("differences are taken in float64", () => {
    const apart = difference(Float32Array.of(1, 2, 3, 8), Float32Array.of(1, 1, 3, 5));
    expect(apart).toEqual({ meanAbs: 1, maxAbs: 3, stdAbs: Math.sqrt(1.5), relL2: Math.sqrt(10 / 36) });
    expect(difference(Float32Array.of(0, 1), Float32Array.of(0, 0)).relL2).toBe(Number.POSITIVE_INFINITY);
  });

  test("a token is a patch in all channels; the mean of a region keeps what its tokens have in common", () => {
    // [2 channels, 4, 4] in patches of 2: four tokens of 8 values, so four regions.
    const two = { ...model, channels: 2, patch: 2 };
    const data = new Float32Array(32).fill(1);
    const apart = data.slice();
    for (const index of [2, 3, 6, 7, 18, 19, 22, 23]) apart[index] = 1.5;
    const found = tokenDifferences(two, { shape: [1, 2, 4, 4], data: apart }, { shape: [1, 2, 4, 4], data });
    expect(found).toEqual({ region: 0.5, token: 0.5, tokensOfRegion: 1 });
    const noise = compare(
      planOf("bf16"),
      output((i) => (i % 2 === 0 ? 1.008 : 0.992)),
    );
    expect(noise.measures?.relL2).toBeCloseTo(0.008);
    expect(noise.measures?.region).toBeCloseTo(0);
    expect(noise.measures?.token).toBeCloseTo(0.008);
    expect(noise.pass).toBe(true);
    expect(
      compare(
        planOf("bf16"),
        output((i) => (i < 30 ? 1 : 1.012)),
      ).measures?.region,
    ).toBeCloseTo(0.012);
  });

  test.each([
    ["fp32", {}, "layout"],
    ["bf16", {}, "layout"],
    ["bf16", { attention: { dtype: "fp16" } }, "layout"],
    ["fp32", { linear: { dtype: "e4m3" } }, "layout"],
    ["bf16", { attention: { dtype: "e4m3" } }, "layout"],
    ["bf16", {}, "arithmetic"],
    ["bf16", { attention: { dtype: "e4m3" } }, "arithmetic"],
  ] as const)("%s with %j is held to its limits: %s", (dtype, parts, comparison) => {
    const some = planOf(dtype, parts);
    const { limits } = compare(some, ones, comparison);
    const passes = (actual: typeof ones) => compare(some, actual, comparison).pass;
    // All tokens alike by the norm, two tokens of one region by its mean, one token by itself.
    const signed = (size: number) => output((i) => 1 + (i % 2 === 0 ? size : -size));
    expect([passes(signed(0.99 * limits.relL2)), passes(signed(1.01 * limits.relL2))]).toEqual([true, false]);
    const region = (size: number) => output((i) => (i < 2 ? 1 + size : 1));
    expect([passes(region(0.98 * limits.region)), passes(region(1.02 * limits.region))]).toEqual([true, false]);
    const token = (size: number) => output((i) => (i < 2 ? 1 + (i === 0 ? size : -size) : 1));
    expect([passes(token(0.98 * limits.token)), passes(token(1.02 * limits.token))]).toEqual([true, false]);
  });

  test("values that are not finite are counted and never pass", () => {
    const result = compare(
      planOf("bf16"),
      output((i) => [Number.NaN, Number.POSITIVE_INFINITY][i] ?? 1),
    );
    expect(result).toMatchObject({ pass: false, nonFinite: 2, relL2: null, measures: null });
    expect(accuracyTable(plainPage, "dit", "cpu", [result], "one device")).toContain(
      "The output of plan some holds 2 values that are NaN or infinite.",
    );
    const nan = output((i) => (i === 3 ? Number.NaN : 1));
    expect(() => compareOutputs(model, planOf("bf16"), "layout", ones, nan)).toThrow("nothing can be compared with it");
    expect(() => compare(planOf("bf16"), { shape: [1], data: Float32Array.of(1) })).toThrow(
      "has shape [1], the reference [1, 1, 4, 8]",
    );
    expect(() => compare(planOf("bf16"), { ...ones, shape: [1, 1, 8, 4] })).toThrow("has shape [1, 1, 8, 4]");
  });
});

test("Z85 decodes the example of its specification", () => {
  expect(decodeZ85("HelloWorld").toString("hex")).toBe("864fd26fb559f75b");
});
