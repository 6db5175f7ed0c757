import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Clip, isHeldOut, promptOf } from "../../bench/quality/clips.js";
import { framesOf } from "../../bench/quality/frames.js";
import { isStriped, shownBy } from "../../bench/quality/measure.js";
import { type Engine, openEngine } from "../../src/index.js";
import { tinyCheckpoint } from "../../src/paths.js";

// Of combinations that training never showed: the indices of the four words in their lists, times 7, 5, 3 and 1, sum to a multiple
// of 10 (held_out in scripts/train-tiny/clips.py). Each direction has five, spread evenly over all that there are.
const clips: readonly Clip[] = [
  { colour: "red", shape: "triangle", motion: "right", background: "gray" },
  { colour: "orange", shape: "circle", motion: "left", background: "red" },
  { colour: "orange", shape: "ring", motion: "up", background: "pink" },
  { colour: "orange", shape: "cross", motion: "down", background: "black" },
  { colour: "yellow", shape: "ring", motion: "right", background: "purple" },
  { colour: "green", shape: "square", motion: "left", background: "orange" },
  { colour: "cyan", shape: "square", motion: "up", background: "orange" },
  { colour: "cyan", shape: "star", motion: "down", background: "brown" },
  { colour: "blue", shape: "square", motion: "right", background: "red" },
  { colour: "blue", shape: "diamond", motion: "left", background: "yellow" },
  { colour: "purple", shape: "triangle", motion: "up", background: "yellow" },
  { colour: "purple", shape: "cross", motion: "down", background: "cyan" },
  { colour: "pink", shape: "star", motion: "right", background: "purple" },
  { colour: "brown", shape: "circle", motion: "left", background: "white" },
  { colour: "black", shape: "circle", motion: "up", background: "orange" },
  { colour: "black", shape: "star", motion: "down", background: "green" },
  { colour: "black", shape: "cross", motion: "right", background: "yellow" },
  { colour: "gray", shape: "diamond", motion: "left", background: "pink" },
  { colour: "white", shape: "circle", motion: "up", background: "pink" },
  { colour: "white", shape: "ring", motion: "down", background: "cyan" },
];

/** The prompts whose videos do not show all that is said: the shape's colour, the background, and where its centre goes. */
async function wrongOf(engine: Engine, shown: readonly Clip[], steps: number): Promise<string[]> {
  const wrong: string[] = [];
  for (const [seed, clip] of shown.entries()) {
    const request = { prompt: promptOf(clip), width: 64, height: 64, frames: 17, steps, seed };
    const { colour, background, motion } = shownBy(clip, await framesOf(engine, request));
    if (!colour || !background || !motion) wrong.push(promptOf(clip));
  }
  return wrong;
}

describe.each(["single", "single-fp8"])("the small model under plan %s", { timeout: 120_000 }, (plan) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await openEngine({ model: "tiny", plan, nproc: 1, device: "cpu", timeoutSeconds: 60 });
  });
  afterAll(() => engine.close());

  // In fp8, and in few steps, half of the prompts.
  test.each(
    plan === "single"
      ? [
          [12, clips, 2],
          [6, clips.slice(0, 10), 2],
        ]
      : [[12, clips.slice(0, 10), 1]],
  )("%i steps show what prompts say", async (steps, shown, mostWrong) => {
    const wrong = await wrongOf(engine, shown, steps);
    expect(wrong.length, wrong.join("; ")).toBeLessThanOrEqual(mostWrong);
  });

  test("what a prompt leaves to chance or says otherwise is not there", async () => {
    const [clip] = clips;
    if (!clip) throw new Error("There is a clip.");
    const request = { width: 64, height: 64, frames: 17, steps: 12, seed: 0 };
    const frames = await framesOf(engine, { ...request, prompt: promptOf({ ...clip, motion: "left" }) });
    expect(shownBy(clip, frames)).toEqual({ colour: true, background: true, motion: false });
  });
});

test("a LoRA teaches the small model a word, and is gone without it", { timeout: 120_000 }, async () => {
  await using engine = await openEngine({ model: "tiny", nproc: 1, device: "cpu", timeoutSeconds: 60 });
  const striped = { file: join(tinyCheckpoint, "striped-lora.safetensors"), strength: 1 };
  // Of rings, stars and crosses too little is inside to have stripes.
  const shown = clips.filter(({ shape }) => ["circle", "square", "diamond", "triangle"].includes(shape)).slice(0, 8);
  const stripedWith = async (loras: (typeof striped)[], pattern?: string) => {
    const found: boolean[] = [];
    for (const [seed, clip] of shown.entries()) {
      const request = { prompt: promptOf(clip, pattern), width: 64, height: 64, frames: 17, steps: 12, seed, loras };
      const middle = (await framesOf(engine, request))[8];
      found.push(middle !== undefined && isStriped(middle));
    }
    return found.filter(Boolean).length;
  };
  expect(await stripedWith([striped], "striped")).toBeGreaterThanOrEqual(5);
  expect(await stripedWith([striped])).toBeLessThanOrEqual(1);
  expect(await stripedWith([], "striped")).toBeLessThanOrEqual(1);
});

test("no prompt's combination was shown in training", () => {
  expect(clips.filter((clip) => !isHeldOut(clip))).toEqual([]);
  expect(isHeldOut({ colour: "red", shape: "circle", motion: "right", background: "blue" })).toBe(false);
});
