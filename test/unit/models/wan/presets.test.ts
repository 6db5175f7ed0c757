import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { chosenVideo } from "../../../../src/cli/wan-options.js";
import { loadModel } from "../../../../src/models/load.js";
import { presetOf, published } from "../../../../src/models/wan/presets.js";
import { bytesAsTokens, checkPrompt, tokenize } from "../../../../src/models/wan/text/texts.js";
import { checkFrames, latentOf, parseSize } from "../../../../src/models/wan/video-size.js";
import { planSchema } from "../../../../src/plan/schema.js";
import type { WanGenerateTask } from "../../../../src/protocol/job.js";
import type { WanGenerateRank } from "../../../../src/protocol/results.js";
import { generateTable, summarizeGenerate } from "../../../../src/views/generate-report.js";
import { duration, VideoProgress } from "../../../../src/views/video-progress.js";

describe("the size of a video", () => {
  test("is the model's own unless it is given", () => {
    const video = (name: string | undefined, size?: string, frames?: number) =>
      chosenVideo({ size, frames }, name === undefined ? undefined : presetOf(name));
    expect(video("14B")).toEqual({ size: { width: 1280, height: 720 }, frames: 81 });
    expect(video("tiny")).toEqual({ size: { width: 96, height: 64 }, frames: 9 });
    expect(video(undefined)).toEqual({ size: { width: 832, height: 480 }, frames: 81 });
    expect(video("14B", "64*32", 5)).toEqual({ size: { width: 64, height: 32 }, frames: 5 });
  });

  test.each(["832*480", "832x480", "832×480"])("%s", (text) => {
    expect(parseSize(text)).toEqual({ width: 832, height: 480 });
  });

  test.each([
    ["833*480", "the nearest is 832*480"],
    ["840*488", "the nearest is 848*496"],
    ["0*16", "the nearest is 16*16"],
    ["832", "it must be WIDTH*HEIGHT"],
    ["-16*16", "it must be WIDTH*HEIGHT"],
  ])("%s is refused", (text, message) => {
    expect(() => parseSize(text)).toThrow(message);
  });

  test("frames are 4n + 1", () => {
    expect([1, 5, 81].map(checkFrames)).toEqual([1, 5, 81]);
    expect(() => checkFrames(2)).toThrow("choose 1 or 5");
    expect(() => checkFrames(84)).toThrow("choose 81 or 85");
  });

  test("a latent is an eighth each way, and a quarter of the frames after the first", () => {
    expect(latentOf({ width: 832, height: 480 }, 81)).toEqual({ frames: 21, height: 60, width: 104 });
    expect(latentOf({ width: 16, height: 16 }, 1)).toEqual({ frames: 1, height: 2, width: 2 });
  });
});

describe("presets", () => {
  test("are found by each of their names", () => {
    expect(["1.4B", "1.3b", "wan-1.3b", "14B", "wan-14b", "tiny"].map((name) => presetOf(name)?.config)).toEqual([
      ...["wan-1.3b", "wan-1.3b", "wan-1.3b", "wan-14b", "wan-14b", "wan-tiny"],
    ]);
    expect(presetOf("7B")).toBeUndefined();
  });
});

test("the published negative prompt is Wan's, character for character", () => {
  // wan/configs/shared_config.py, sample_neg_prompt, in UTF-8.
  const bytes = new TextEncoder().encode(published.negativePrompt);
  expect([published.negativePrompt.length, bytes.length]).toEqual([137, 403]);
  expect(createHash("sha256").update(bytes).digest("hex")).toBe(
    "ce96e0324e4b54ce4b6e867f669ca520952e1a34cc116543516b1897f0d3c47e",
  );
});

describe("texts", () => {
  const named = (prompt: string, negative: string) => [
    { name: "The prompt", text: prompt },
    { name: "The negative prompt", text: negative },
  ];
  const texts = named("A red   car", "");
  const directory = presetOf("tiny")?.bundled ?? "";

  test("a prompt must have something in it", () => {
    expect(() => checkPrompt(" &nbsp;\n")).toThrow("--prompt is empty");
    expect(() => checkPrompt("x")).not.toThrow();
  });

  test("are tokenised with the checkpoint's tokenizer; an empty negative prompt is its end token", async () => {
    const folder = `${directory}/google/umt5-xxl`;
    const { ids, warnings } = await tokenize(texts, folder, 512);
    const [prompt = [], negative] = ids;
    expect(negative).toEqual([1]);
    expect(prompt.at(-1)).toBe(1);
    expect(prompt.length).toBeGreaterThan(3);
    expect(warnings).toEqual([]);
    const cut = await tokenize(named("A red car", published.negativePrompt), folder, 6);
    expect(cut.ids.map((each) => [each.length, each.at(-1)])).toEqual([
      [6, 1],
      [6, 1],
    ]);
    expect(cut.warnings).toEqual([
      `The prompt has ${prompt.length} tokens; the model takes 6, so the last ${prompt.length - 6} are cut off.`,
      expect.stringMatching(/^The negative prompt has \d+ tokens;/),
    ]);
  });

  test("without a tokenizer, each byte of the cleaned text is a token of the vocabulary", () => {
    expect(bytesAsTokens(texts, 1000, 512).ids[0]).toEqual([67, 34, 116, 103, 102, 34, 101, 99, 116, 1]);
    const { ids, warnings } = bytesAsTokens(named("é".repeat(4), ""), 153, 5);
    expect(ids[0]).toEqual([0xc3 + 2 - 153, 0xa9 + 2 - 153, 0xc3 + 2 - 153, 0xa9 + 2 - 153, 1]);
    expect(warnings).toEqual(["The prompt has 9 tokens; the model takes 5, so the last 4 are cut off."]);
  });
});

describe("progress", () => {
  const sample = (done: number) => ({ stage: "sample", done, total: 50, milliseconds: 2000 * done }) as const;

  test("without a terminal it is a line for each step, with seconds a step and time left", () => {
    const lines: string[] = [];
    const progress = new VideoProgress({ info: (line) => lines.push(line) }, 5);
    progress.report({ stage: "prepare", done: 1, total: 1, milliseconds: 12_345 });
    progress.report(sample(20));
    progress.report(sample(50));
    progress.frame();
    progress.report({ stage: "decode", done: 5, total: 5, milliseconds: 1000 });
    expect(lines).toEqual([
      "Prepared the models in 12.35 s: rehearsed, loaded and warmed up.",
      "Step 20 of 50: 2.00 s/step, 1 min 0 s left.",
      "Step 50 of 50: 2.00 s/step, 0 s left.",
      "Sampled 50 steps in 100.0 s.",
      "Decoded 5 frames in 1.00 s.",
    ]);
  });

  test("on a terminal it is a bar that fits its width", () => {
    const lines: string[] = [];
    const drawn: string[] = [];
    const terminal = { write: (text: string) => drawn.push(text.replace("\r\x1b[K", "")), columns: 60 };
    const progress = new VideoProgress({ info: (line) => lines.push(line), terminal }, 4);
    progress.report(sample(25));
    progress.frame();
    progress.clear();
    expect(drawn).toEqual([
      "[===============               ] step 25/50, 2.00 s/step, 5",
      "[========                      ] frame 1/4",
      "",
    ]);
    expect(lines).toEqual([]);
    // Some terminals say that they have no columns.
    new VideoProgress({ info: () => {}, terminal: { ...terminal, columns: 0 } }, 4).frame();
    expect(drawn.at(-1)).toContain("] frame 1/4");
  });

  test("durations", () => {
    expect([0, 59, 60, 725, 3600, 3780].map(duration)).toEqual([
      ...["0 s", "59 s", "1 min 0 s", "12 min 5 s", "1 h 0 min", "1 h 3 min"],
    ]);
  });
});

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
    memory: { neededBytes: 1, availableBytes: 2, encoderFirst: false },
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
  expect(generateTable(summary)).toContain("Both texts' forwards: 50.00 ms, 4.00 TFLOP/s.");
});
