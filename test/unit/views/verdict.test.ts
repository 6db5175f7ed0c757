import { expect, test } from "vitest";
import { loadDitModel } from "../../../src/models/load.js";
import { planSchema } from "../../../src/plan/schema.js";
import type { LinkSummary } from "../../../src/views/links-report.js";
import { type ProfileSummary, speedupOf } from "../../../src/views/profile-report.js";
import {
  accuracyVerdict,
  baselineVerdict,
  generateVerdict,
  linksVerdict,
  profileVerdict,
  speedupVerdict,
} from "../../../src/views/verdict.js";

const model = await loadDitModel("dit-tiny");

type Facts = Pick<ProfileSummary, "latencyMs" | "peakShare" | "processors">;
type Phases = readonly [attention: number, gemm: number, elementwise: number, communication: number];

/** Ranks of a forward of 100 ms, each with its phases; what they leave is idle. */
function profile(
  mesh: object,
  phases: readonly Phases[],
  more: { ring?: number; graph?: boolean } & Partial<Facts> = {},
) {
  const { ring = 0, graph = true, ...rest } = more;
  return {
    ...{ latencyMs: { median: 90, p10: 90, p90: 90 }, recordedMs: 100, peakShare: null, model },
    ...{ plan: planSchema.parse({ mesh, graph }), worldSize: phases.length, processors: 8 },
    ranks: phases.map(([attention, gemm, elementwise, communication], rank) => ({
      ...{ rank, recordedMs: 100, ringWaitsMs: [0, ring] },
      phases: { attention, gemm, elementwise, communication },
    })),
    ...rest,
  };
}

const busy: Phases = [30, 25, 5, 38];
test.each([
  [
    "waits for the ring",
    profile({ cp: 4 }, [busy, busy, busy, busy], { ring: 38 }),
    "communication-bound: 38 % of the time waits for the ring; try cp2×tp2.",
  ],
  [
    "sums",
    profile({ cp: 2, tp: 2 }, [busy, busy, busy, busy], { ring: 2 }),
    "communication-bound: 38 % of the time goes to sums, gathers and waits between workers; try cp4.",
  ],
  // 8 heads are not shared by 16.
  [
    "no other mesh",
    profile({ cp: 2, tp: 8 }, Array<Phases>(16).fill(busy), { ring: 38, processors: 16 }),
    "communication-bound: 38 % of the time waits for the ring.",
  ],
  [
    "just under the limit",
    profile(
      { cp: 2 },
      [
        [40, 30, 5, 24],
        [40, 30, 5, 24],
      ],
      { ring: 24 },
    ),
    "compute-bound: attention takes 40 % of the time, gemm takes 30 %.",
  ],
  [
    "idle",
    profile({}, [[20, 30, 5, 0]], { graph: false }),
    "launch-bound: for 45 % of the recorded forward nothing ran; try graph: true in the plan.",
  ],
  [
    "idle, in a graph",
    profile({}, [[20, 30, 5, 0]]),
    "launch-bound: for 45 % of the recorded forward nothing ran; the timed forwards are one graph, which hides some of it.",
  ],
  [
    "uneven",
    profile({ cp: 2 }, [
      [20, 30, 10, 15],
      [40, 40, 10, 5],
    ]),
    "uneven: rank 1 computes 1.2 times the mean, and the others wait for it.",
  ],
  [
    "one worker",
    profile({}, [[40, 55, 5, 0]], { peakShare: 0.62 }),
    "compute-bound: gemm takes 55 % of the time, attention takes 40 %, at 62 % of the peak.",
  ],
  [
    "too few processors",
    profile({ cp: 2 }, [busy, busy], { processors: 1 }),
    "none, since 2 workers share 1 processor: their waits are for a turn, not for each other.",
  ],
  [
    "another forward",
    profile({}, [[40, 55, 5, 0]], { latencyMs: { median: 40, p10: 40, p90: 40 } }),
    "none, since the recorded forward took 2.50 times as long as a timed one: its shares are not theirs.",
  ],
])("a profile, %s", (_, facts, verdict) => {
  expect(profileVerdict(facts)).toBe(verdict);
});

test.each([
  [2, 8, 60, "2 workers are faster than one: 1.50 ×, 75 % of the ideal 2 ×."],
  [8, 2, 45, "8 workers are faster than one: 2.00 ×, 2 processors would allow 2 ×."],
  [2, 8, 100, "2 workers are slower than one: 0.90 ×, 45 % of the ideal 2 ×."],
  [1, 8, 90, "the plan has one worker: measured twice, its times differ by 1.00 ×."],
])("%d workers on %d processors, %d ms beside 90", (worldSize, processors, median, verdict) => {
  const latencyMs = (value: number) => ({ latencyMs: { median: value, p10: value, p90: value } });
  const gain = speedupVerdict(speedupOf({ ...latencyMs(median), worldSize, processors }, latencyMs(90)));
  expect(gain).toBe(verdict);
  expect(baselineVerdict(gain, "none, since x.")).toBe(verdict);
  expect(baselineVerdict(gain, "compute-bound: x.")).toBe(`${verdict.slice(0, -1)}; compute-bound: x.`);
});

test("plans that agree, and those that do not", () => {
  const limits = { relL2: 0.01, region: 0.003, token: 0.02 };
  const result = (plan: string, relL2: number) => ({
    ...{ plan, limits, pass: relL2 <= limits.relL2 },
    measures: { relL2, region: 0.0003, token: 0.002 },
  });
  expect(accuracyVerdict([result("cp2", 0.0035), result("tp2", 0.002)])).toBe(
    "all 2 comparisons passed; the nearest to its limit is cp2, at 35 %.",
  );
  expect(accuracyVerdict([result("cp2", 0.0035)])).toBe("passed: 35 % of the limit.");
  expect(accuracyVerdict([result("cp2", 0.02), result("tp2", 0.002)])).toBe("1 of 2 comparisons failed: cp2.");
  const nan = { ...result("cp2", 0), measures: null, pass: false };
  expect(accuracyVerdict([nan])).toBe("1 of 1 comparison failed: cp2.");
});

const link = (pattern: LinkSummary["pattern"], microseconds: number, bytes = 64 * 2 ** 20): LinkSummary => ({
  ...{ transport: "peer", pattern, bytes, microseconds, gigabytesPerSecond: bytes / (microseconds * 1e3) },
});
test.each([
  [
    "NVIDIA H200",
    2,
    [link("all-reduce", 212), link("halo", 233)],
    "as fast as two H200 over NVLink; the furthest from it is all-reduce over peer (212.0 µs for 64 MiB, 209 between two H200 over NVLink).",
  ],
  [
    "NVIDIA H200",
    2,
    [link("ring shift", 2400), link("halo", 233)],
    "slow: ring shift over peer takes 12.7 times what is normal (2400.0 µs for 64 MiB, 189 between two H200 over NVLink); nvidia-smi topo -m shows the links.",
  ],
  // Nobody has measured these.
  [
    "NVIDIA H200",
    4,
    [link("all-reduce", 212)],
    "at most 317 GB/s each way (all-reduce over peer), and no exchange under 212 µs; what is normal for these links has not been measured.",
  ],
  [
    "AMD EPYC",
    2,
    [link("halo", 10, 1024), link("halo", 400, 2 ** 20)],
    "at most 2.62 GB/s each way (halo over peer), and no exchange under 10.0 µs; what is normal for these links has not been measured.",
  ],
])("links of %s, %d workers", (device, workers, results, verdict) => {
  expect(linksVerdict(device, workers, results)).toBe(verdict);
});

test.each([
  [
    { sampleMs: 56_000 },
    {},
    "sampling took 93 % of the 60.0 s; fewer --steps than 50, --fp8 or more workers would help most.",
  ],
  [
    { sampleMs: 56_000 },
    { linear: { dtype: "e4m3" } },
    "sampling took 93 % of the 60.0 s; fewer --steps than 50 or more workers would help most.",
  ],
  [
    { decodeMs: 56_000 },
    {},
    "decoding took 93 % of the 60.0 s; fewer --frames, a smaller --size or more workers would help most.",
  ],
  [{ videoMs: 56_000 }, {}, "finishing the file took 93 % of the 60.0 s; ffmpeg, if installed, is faster."],
  [
    { prepareMs: 90_000 },
    {},
    "getting ready took 90.0 s, longer than the video itself (5.00 s): several prompts (--prompts) share it.",
  ],
])("a video whose longest stage is %j", (longest, parts, verdict) => {
  const stages = { prepareMs: 100, encodeMs: 1000, sampleMs: 1500, decodeMs: 1500, videoMs: 1000, ...longest };
  const { prepareMs: _, ...counted } = stages;
  const fill = Object.keys(longest)[0] === "prepareMs" ? 5000 : 60_000;
  const sampling = { solver: "unipc", steps: 50, shift: 5, guideScale: 5 } as const;
  const video = { out: "v.mp4", encoder: "h264-mp4-encoder (WebAssembly)", width: 16, height: 16, frames: 5, fps: 16 };
  expect(Object.values(counted).reduce((sum, each) => sum + each, 0)).toBeLessThanOrEqual(fill);
  const summary = { stages, totalMs: fill, sampling, worldSize: 1, video, plan: planSchema.parse(parts) };
  expect(generateVerdict(summary)).toBe(verdict.replace("93 %", `${((100 * 56_000) / fill).toFixed(0)} %`));
});
