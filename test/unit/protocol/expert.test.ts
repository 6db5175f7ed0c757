import { expect, test } from "vitest";
import { expertOf, guideScaleOf, isUnguided } from "../../../src/protocol/expert.js";
import { seedAfter } from "../../../src/protocol/seed.js";
import { planSampling, samplingPlan } from "../../../src/sampling/scheduler.js";

const sampling = { guideScale: 4, low: { boundary: 0.875, guideScale: 3 } };
const highSteps = (timesteps: readonly number[], boundary: number) =>
  timesteps.filter((t) => expertOf(t, { guideScale: 1, low: { boundary, guideScale: 1 } }) === "high").length;

test("a step at the boundary is the first transformer's", () => {
  expect([876, 875, 874.99, 0].map((t) => expertOf(t, sampling))).toEqual(["high", "high", "low", "low"]);
  expect(expertOf(0, { guideScale: 5 })).toBe("high");
  expect([guideScaleOf("high", sampling), guideScaleOf("low", sampling)]).toEqual([4, 3]);
});

test("the published schedules have 26 steps of 40 for high noise, the distilled ones 2 of 4", () => {
  expect(highSteps(planSampling("unipc", 40, 12).timesteps, 0.875)).toBe(26);
  expect(highSteps(planSampling("unipc", 40, 5).timesteps, 0.9)).toBe(15);
  expect(highSteps(samplingPlan({ solver: "euler", steps: 4, shift: 5 }).timesteps, 0.875)).toBe(2);
});

test("only guidance 1 of both transformers leaves the negative prompt out", () => {
  const of = (high: number, low: number) => isUnguided({ guideScale: high, low: { boundary: 0.9, guideScale: low } });
  expect([of(1, 1), of(1, 2), of(2, 1), isUnguided({ guideScale: 1 })]).toEqual([true, false, false, true]);
});

test("the seed after the last is 0", () => {
  expect([seedAfter(3), seedAfter(String(2n ** 64n - 1n))]).toEqual([4, 0]);
});
