import { expect, test } from "vitest";
import { loadModel } from "../../../src/models/load.js";
import { planSchema } from "../../../src/plan/schema.js";
import type { WanGenerateTask } from "../../../src/protocol/job.js";
import type { WanGenerateRank } from "../../../src/protocol/results.js";
import { generateTable, summarizeGenerate } from "../../../src/views/generate-report.js";
import { plainPage } from "../../../src/views/page.js";

test("a generation is summed up by its slowest rank; the total leaves out preparing, two forwards at once count as two", async () => {
  const model = await loadModel("wan-tiny");
  if (model.kind !== "wan") throw new Error("wan-tiny is a Wan model.");
  const task: WanGenerateTask = {
    ...{ kind: "wan-generate", model, plan: planSchema.parse({}), weights: { from: "random", seed: 1 } },
    ...{ ids: { prompt: [1], negative: [1] }, size: { frames: 1, height: 8, width: 8 }, seed: 1 },
    sampling: { solver: "unipc", steps: 2, shift: 5, guideScale: 5 },
  };
  const rank = (index: number): WanGenerateRank => ({
    rank: index,
    device: "cpu",
    stages: { prepareMs: 1000, encodeMs: 10 + index, sampleMs: 200, decodeMs: 40 - index },
    load: { milliseconds: 500 + index, bytes: 1e9 },
    memory: { neededBytes: 1, availableBytes: 2, encoderFirst: false, hostBytes: 0 },
    switchMs: 0,
    stepsMs: [100, 90 + 20 * index],
    forwardsMs: [50, 50],
    forwardsAtOnce: 2,
    forwardFlops: 1e11,
    heldMemoryBytes: 1,
    peakMemoryBytes: (1 + index) * 2 ** 30,
  });
  const video = { out: "a.mp4", encoder: "none", width: 64, height: 64, frames: 1, fps: 16, finishMs: 7 };
  const summary = summarizeGenerate(task, [rank(0), rank(1)], video, "weights");
  expect(summary.stages).toEqual({ prepareMs: 1000, encodeMs: 11, sampleMs: 200, decodeMs: 40, videoMs: 7 });
  expect([summary.totalMs, summary.secondsPerStep, summary.peakMemoryBytes]).toEqual([258, 0.105, 2 ** 31]);
  expect(summary.forwardTflops).toBeCloseTo(4);
  expect(summary.load).toEqual({ milliseconds: 501, bytes: 2e9 });
  const table = generateTable(plainPage, summary);
  expect(table).toContain("Both texts' forwards: 50.00 ms, 4.00 TFLOP/s.");
  expect(table).toMatch(/^stage +seconds +share +amount +rate$/m);
  // Loading is loading alone; what else preparing took stands by itself.
  expect(table).toMatch(/^load the weights +0\.5010 +2\.00 GB +3\.99 GB\/s$/m);
  expect(table).toMatch(/^plan memory, warm up +0\.4990$/m);
  expect(table).toMatch(/^sample +0\.2000 +78 % +2 steps +0\.1050 s\/step$/m);
  expect(table).toMatch(/^from the texts to the file +0\.2580$/m);
});
