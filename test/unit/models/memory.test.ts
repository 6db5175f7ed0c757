import { describe, expect, test } from "vitest";
import { walkDit } from "../../../src/models/dit/walk.js";
import { loadModel } from "../../../src/models/load.js";
import { isDit, isWan } from "../../../src/models/registry.js";
import type { DitModel, WanModel } from "../../../src/models/schema.js";
import { oneHost } from "../../../src/models/walk/walk.js";
import { walkWan } from "../../../src/models/wan/walk.js";
import { walkVideo } from "../../../src/models/wan/walk-video.js";
import { type PlanDocument, planSchema } from "../../../src/plan/schema.js";
import { ditBytes, videoBytes, wanBytes } from "./on-paper.js";

/** The CPU module takes a scale for each row of a head, whatever its size. */
const cpu = { ...oneHost, scalesByHead: () => true };

async function ditModel(name: string): Promise<DitModel> {
  const model = await loadModel(name);
  if (!isDit(model)) throw new Error(`${name} is no DiT.`);
  return model;
}

async function wanModel(name: string): Promise<WanModel> {
  const model = await loadModel(name);
  if (!isWan(model)) throw new Error(`${name} is no Wan model.`);
  return model;
}

const fp8: PlanDocument = { linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } };

describe("memory on paper is what a rehearsal finds", () => {
  const ditPlans: [string, PlanDocument][] = [
    ["dit", {}],
    ["dit", fp8],
    ["dit", { attention: { dtype: "fp16" } }],
    ["dit-tiny", { dtype: "fp32" }],
    ["dit-1k", { mesh: { cp: 3 } }],
    ["dit-1k", { mesh: { cp: 4, tp: 2 }, ...fp8 }],
    ["dit", { mesh: { cp: 4, tp: 2 } }],
    ["dit", { mesh: { cp: 8 }, ...fp8 }],
    ["dit", { mesh: { tp: 8 }, norms: { sequenceParallel: true } }],
    ["dit", { mesh: { tp: 4 }, embeddings: { tensorParallel: true } }],
    [
      "dit",
      {
        mesh: { tp: 2 },
        layers: [
          { path: "blocks.*.mlp.0", split: "replicated" },
          { path: "blocks.*.mlp.2", split: "replicated" },
        ],
      },
    ],
  ];
  test.each(ditPlans)("%s, %o", async (name, document) => {
    const [model, plan] = [await ditModel(name), planSchema.parse(document)];
    const found = await ditBytes(model, plan);
    expect(Math.abs(walkDit(model, plan, cpu).memory.bytes / found - 1)).toBeLessThan(0.02);
  });

  const wanPlans: [string, PlanDocument][] = [
    ["wan-1.3b", {}],
    ["wan-1.3b", fp8],
    ["wan-14b", { mesh: { cfg: 2, cp: 4 } }],
    ["wan-14b", { mesh: { cp: 4, tp: 2 }, ...fp8 }],
    ["wan-tiny", { mesh: { cp: 3 }, dtype: "fp32" }],
    ["wan-slice", { mesh: { cp: 4, tp: 4 } }],
  ];
  const size = { frames: 21, height: 60, width: 104 };
  test.each(wanPlans)("one forward of %s, %o", async (name, document) => {
    const [model, plan] = [await wanModel(name), planSchema.parse(document)];
    const found = await wanBytes(model, plan, size);
    expect(Math.abs(walkWan(model, plan, size, cpu).memory.bytes / found - 1)).toBeLessThan(0.02);
  });

  test.each(wanPlans)("a video of %s, %o", async (name, document) => {
    const [model, plan] = [await wanModel(name), planSchema.parse(document)];
    const found = await videoBytes(model, plan, size);
    expect(Math.abs(walkVideo(model, plan, size, cpu).bytes / found - 1)).toBeLessThan(0.02);
  });
});
