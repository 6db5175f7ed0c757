import { describe, expect, test } from "vitest";
import { videoComparison } from "../../../src/views/compare/pictures.js";
import { compareTable } from "../../../src/views/compare/report.js";
import { comparedSchema, compareResults } from "../../../src/views/compare/results.js";
import { dumpComparison, inOrder, tensorDifference } from "../../../src/views/compare/tensors.js";
import { comparePage } from "../../../src/views/html/compare-page.js";
import { plainPage } from "../../../src/views/page.js";

const kernel = (name: string, milliseconds: number) => ({
  ...{ name, shape: "8×8", phase: "gemm" as const, launches: 1, milliseconds, flops: 1, bytes: 1, roofMs: null },
});
function profile(gemm: number, changed: object = {}) {
  const phasesMs = { attention: 10, gemm, elementwise: 2, communication: 3 };
  const median = 16 + gemm;
  return comparedSchema.parse({
    ...{ schemaVersion: 1, command: "profile", commandLine: ["ditrun"], startedAt: "2026", host: "a", worldSize: 2 },
    ...{ plan: { name: "cp2", mesh: { cp: 2 } }, model: { name: "dit" }, ditrun: { version: "0.2.0" } },
    ...{ latencyMs: { median, p10: median - 0.2, p90: median + 0.2 }, tflops: 100 / median, recordedMs: median + 1 },
    environment: { kernelsHash: "aa" },
    ...{
      phasesMs,
      ranks: [{ ringWaitsMs: [], kernels: [kernel("gemm", gemm), kernel("sum", 3)], peakMemoryBytes: 2 ** 30 }],
    },
    ...changed,
  });
}
const generate = (totalMs: number, sampleMs: number) =>
  comparedSchema.parse({
    ...{ schemaVersion: 1, command: "wan generate", commandLine: [], startedAt: "", host: "a", worldSize: 1 },
    ...{ plan: {}, model: { name: "tiny" }, totalMs, secondsPerStep: sampleMs / 1e4, peakMemoryBytes: 2 ** 30 },
    forwardMs: { median: 5, p10: 5, p90: 5 },
    stages: { prepareMs: 1, encodeMs: 20, sampleMs, decodeMs: 70, videoMs: 10 },
    video: { width: 96, frames: 17 },
  });

describe("two profiles", () => {
  test("what changed is named, with the part of the time that it is in, and the settings that differ", () => {
    const other = { plan: { name: "cp2", mesh: { cp: 4 } }, environment: { kernelsHash: "bb" }, host: "b" };
    const comparison = compareResults(profile(4), profile(8, other));
    expect(comparison.slowerPercent).toBeCloseTo(20);
    expect(comparison.parts[0]).toEqual({ name: "gemm", a: 4, b: 8, deltaMs: 4 });
    expect(comparison.kernels).toEqual([{ name: "gemm 8×8", a: 4, b: 8, deltaMs: 4 }]);
    expect(comparison.settings).toEqual([
      { name: "plan.mesh.cp", a: "2", b: "4" },
      { name: "host", a: "a", b: "b" },
      { name: "environment.kernelsHash", a: "aa", b: "bb" },
    ]);
    expect(comparison.verdict).toBe(
      "B is 20.0 % slower: 20.00 to 24.00 ms for a forward, most of it gemm (+4.00 ms); 3 settings differ: plan.mesh.cp, host, environment.kernelsHash.",
    );
    // Less speed is worse, and more time is too.
    const table = compareTable({ ...plainPage, colour: true }, comparison);
    expect(table).toContain("\u001b[31m−16.7 %");
    expect(table).toContain("\u001b[31m+20.0 %");
    const faster = compareResults(profile(8), profile(4));
    expect(faster.verdict).toContain(
      "B is 16.7 % faster: 24.00 to 20.00 ms for a forward, most of it gemm (−4.00 ms); no",
    );
  });

  test("a change within what forwards differ by is none", () => {
    const loud = { latencyMs: { median: 20, p10: 15, p90: 25 } };
    const { verdict, settings } = compareResults(profile(4, loud), profile(4.5));
    expect(settings).toEqual([]);
    expect(verdict).toBe(
      "as fast: 20.00 to 20.50 ms for a forward, within the 25.0 % by which forwards differ; no setting differs.",
    );
  });

  test("a profile and a video are not compared", () => {
    expect(() => compareResults(profile(4), generate(400, 300))).toThrow(
      "one is of profile and the other of wan generate",
    );
  });

  test("the page of both shows what it is given as text", () => {
    const comparison = compareResults(profile(4), profile(8, { host: "<b>" }));
    const made = { ditrun: { version: "0.2.0" }, host: "h", startedAt: "2026" };
    const page = comparePage({ a: "<a>.json", b: "b.json", comparison, made });
    expect(page).toContain("A: &lt;a&gt;.json, B: b.json");
    expect(page).toContain('<td class="words">&lt;b&gt;</td>');
    expect(page).toContain('<span class="up">+20.0 % worse</span>');
    expect(page).not.toMatch(/\b(?:src|href)=|https?:/);
  });
});

test("two videos' results are compared by stage", () => {
  const comparison = compareResults(generate(400, 300), generate(500, 400));
  expect(comparison.slowerPercent).toBeCloseTo(25);
  expect(comparison.parts[0]).toEqual({ name: "sample", a: 300, b: 400, deltaMs: 100 });
});

describe("videos", () => {
  test("are equal, or differ from a frame on", () => {
    const size = { width: 20, height: 20 };
    const equal = videoComparison(size, [{ mse: 0, ssim: 1 }], 100);
    expect([equal.psnr, equal.ssim, equal.firstApart, equal.differencePercent]).toEqual([null, 1, null, 0]);
    expect(equal.verdict).toBe("the videos are equal, pixel for pixel.");
    const apart = videoComparison(
      size,
      [
        { mse: 0, ssim: 1 },
        { mse: 2, ssim: 0.5 },
      ],
      100,
    );
    // The mean squared difference of both frames is 1; root (1 / 100) is a tenth.
    expect(apart.psnr).toBeCloseTo(48.1308, 4);
    expect([apart.ssim, apart.firstApart, apart.differencePercent]).toEqual([0.75, 2, 10]);
    expect(apart.byFrame.map(({ psnr }) => psnr === null)).toEqual([true, false]);
    expect(compareTable(plainPage, apart)).toMatch(/^ *2 +45\.12 +0\.5000$/m);
    expect(videoComparison(size, [{ mse: 4, ssim: null }], 0)).toMatchObject({ ssim: null, differencePercent: 100 });
  });
});

describe("dumps", () => {
  const tensor = (name: string, a: number[], b: number[]) =>
    tensorDifference(name, [a.length], Float32Array.from(a), Float32Array.from(b));

  test("are looked at in the order in which they were computed", () => {
    const names = [
      "video",
      "latent.10",
      "latent.2",
      "layer.003.cond.block.1",
      "context_null",
      "layer.000.cond.x",
      "context",
    ];
    expect(inOrder(names)).toEqual([
      ...["context", "context_null", "layer.000.cond.x", "layer.003.cond.block.1", "latent.2", "latent.10", "video"],
    ]);
  });

  test("part at the first tensor that is not the same, bit for bit", () => {
    const tensors = [
      tensor("context", [1, 2], [1, 2]),
      tensor("latent.3", [3, 4], [3, 4.5]),
      tensor("video", [0, 2], [0, 1]),
    ];
    expect(tensors[1]).toMatchObject({ where: "step 4", relL2: 0.1, maxAbs: 0.5, equal: false });
    // The range is 2, the mean squared difference 1/2: 10 · log10(8).
    expect(tensors[2]?.psnr).toBeCloseTo(9.0309, 4);
    const { verdict, firstApart, differencePercent } = dumpComparison(tensors, ["x"], []);
    expect([firstApart, differencePercent]).toEqual(["step 4", 50]);
    expect(verdict).toBe("they part at step 4, by 10.0 %; video differs by 50.0 %; 1 tensor is in one of them only.");
    expect(dumpComparison(tensors.slice(0, 1), [], []).verdict).toBe("the dumps are equal in their one tensor.");
    const broken = dumpComparison([tensor("layer.007.cond.block.3", [1], [Number.NaN])], [], []);
    expect([broken.firstApart, broken.differencePercent]).toEqual(["block.3, cond", null]);
    expect(broken.verdict).toContain("part at block.3, cond, where values are not finite");
  });
});
