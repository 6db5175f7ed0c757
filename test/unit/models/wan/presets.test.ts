import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { chosenVideo } from "../../../../src/cli/wan-options.js";
import { presetOf, published } from "../../../../src/models/wan/presets.js";
import { bytesAsTokens, checkPrompt, tokenize } from "../../../../src/models/wan/text/texts.js";
import { checkFrames, latentOf, parseSize } from "../../../../src/models/wan/video-size.js";

describe("the size of a video", () => {
  test("is the model's own unless it is given", () => {
    const video = (name: string | undefined, size?: string, frames?: number) =>
      chosenVideo({ size, frames }, name === undefined ? undefined : presetOf(name));
    expect(video("14B")).toEqual({ size: { width: 1280, height: 720 }, frames: 81 });
    expect(video("tiny")).toEqual({ size: { width: 96, height: 96 }, frames: 17 });
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
    const cut = await tokenize(named("A red car", published.negativePrompt), folder, 4);
    expect(cut.ids.map((each) => [each.length, each.at(-1)])).toEqual([
      [4, 1],
      [4, 1],
    ]);
    expect(cut.warnings).toEqual([
      `The prompt has ${prompt.length} tokens; the model takes 4, so the last ${prompt.length - 4} are cut off.`,
      expect.stringMatching(/^The negative prompt has \d+ tokens;/),
    ]);
  });

  test("a prompt of words that the tokenizer does not know is told, one of a few is not", async () => {
    const folder = `${directory}/google/umt5-xxl`;
    const told = async (prompt: string) => (await tokenize(named(prompt, ""), folder, 512)).unknown;
    expect(await told("Two cats sleep on my sofa")).toEqual([
      "The prompt has 6 words, and the model's tokenizer does not know 5: the video will not show what they mean.",
      undefined,
    ]);
    expect(await told("A red car")).toEqual([undefined, undefined]);
    expect(await told("A RED circle moves right, on blue!")).toEqual([undefined, undefined]);
  });

  test("without a tokenizer, each byte of the cleaned text is a token of the vocabulary", () => {
    expect(bytesAsTokens(texts, 1000, 512).ids[0]).toEqual([67, 34, 116, 103, 102, 34, 101, 99, 116, 1]);
    const { ids, warnings } = bytesAsTokens(named("é".repeat(4), ""), 153, 5);
    expect(ids[0]).toEqual([0xc3 + 2 - 153, 0xa9 + 2 - 153, 0xc3 + 2 - 153, 0xa9 + 2 - 153, 1]);
    expect(warnings).toEqual(["The prompt has 9 tokens; the model takes 5, so the last 4 are cut off."]);
  });
});
