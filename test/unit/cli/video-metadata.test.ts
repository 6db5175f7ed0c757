import { expect, test } from "vitest";
import { videoMetadata } from "../../../src/cli/video-metadata.js";
import { loadModel } from "../../../src/models/load.js";
import { planSchema } from "../../../src/plan/schema.js";
import type { WanGenerateTask } from "../../../src/protocol/job.js";
import { packageVersion } from "../../../src/version.js";

const negative = { name: "The negative prompt", text: "grey" };
const format = { width: 96, height: 64, frames: 9, fps: 16 };

async function tinyModel() {
  const model = await loadModel("wan-tiny");
  if (model.kind !== "wan") throw new Error(`${model.name} is not Wan.`);
  return model;
}

async function metadataOf(text: string, guideScale = 5) {
  const task: Omit<WanGenerateTask, "ids"> = {
    kind: "wan-generate",
    model: await tinyModel(),
    plan: planSchema.parse({ mesh: { cp: 2, tp: 2 } }),
    weights: { from: "random", seed: 0 },
    size: { frames: 3, height: 8, width: 12 },
    sampling: { solver: "unipc", steps: 6, shift: 5, guideScale },
    seed: "18446744073709551615",
  };
  const { comment, ...rest } = videoMetadata({ name: "--prompt", text }, negative, task, format);
  return { ...rest, bytes: Buffer.byteLength(comment), comment: JSON.parse(comment) };
}

test("a video tells all that makes it again", async () => {
  const { title, comment, software } = await metadataOf("Two cats\n\tbox. \u0007");
  expect(title).toBe("Two cats box. \\u0007");
  expect(software).toBe(`ditrun ${packageVersion()}`);
  expect(comment).toEqual({
    ...{ ditrun: packageVersion(), prompt: "Two cats\n\tbox. \u0007", negativePrompt: "grey" },
    ...{ seed: "18446744073709551615", model: "wan-tiny", weights: "random", noise: "ditrun" },
    ...{ plan: "cp2×tp2", dtype: "bf16", vaeDtype: "fp16" },
    ...{ size: "96*64", frames: 9, fps: 16, steps: 6, solver: "unipc", shift: 5, guideScale: 5 },
  });
});

test("without guidance it has no negative prompt", async () => {
  expect((await metadataOf("x", 1)).comment).not.toHaveProperty("negativePrompt");
});

test("a text beyond what any encoder reads is cut between characters, and fits into an argument", async () => {
  for (const character of ["🐈", "\u0001", "猫", "\ud83d"]) {
    const { comment, title, bytes } = await metadataOf(character.repeat(20_000));
    expect(comment.prompt).toBe(`${character.repeat(8000)}…`);
    expect(title.length).toBeLessThanOrEqual(401);
    expect(bytes).toBeLessThan(60_000);
  }
});
