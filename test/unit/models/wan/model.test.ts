import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSafetensors } from "../../../../src/formats/safetensors.js";
import { parameterCount, tokenCount } from "../../../../src/models/cost.js";
import { ditLayerRules, splitOf, wanLayerRules } from "../../../../src/models/layer-rules.js";
import { loadDitModel, loadModel, loadWanModel } from "../../../../src/models/load.js";
import { type PlanFlags, resolvePlan } from "../../../../src/plan/resolve.js";
import { planSchema, vaeDtype } from "../../../../src/plan/schema.js";
import { wanFlops } from "../../../../src/worker/models/wan/transformer.js";
import { checkpointOf, goldenModel, layouts } from "../../worker/wan/golden.js";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-wan-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("Wan's sizes", () => {
  it.for(layouts)("are read from the configuration of the %s layout", async (layout) => {
    expect(await loadWanModel(await checkpointOf(layout))).toEqual({
      ...{ kind: "wan", name: "checkpoint", width: 128, ffn: 320, heads: 4, layers: 3, channels: 16, patch: 2 },
      ...{ freqDim: 256, textLength: 512, epsilon: 1e-6 },
    });
  });

  it("are refused where they are of another task, with the file and the value", async () => {
    const checkpoint = await checkpointOf("original");
    const config = join(folder, "config.json");
    writeFileSync(config, JSON.stringify({ model_type: "i2v" }));
    const other = { ...checkpoint, transformer: { ...checkpoint.transformer, config } };
    await expect(loadWanModel(other)).rejects.toThrow(`${config}: model_type is "i2v"; it must be t2v`);
  });

  it("are the published ones, and so are the tokens of 81 frames of 832 × 480", async () => {
    const model = await loadModel("wan-1.3b");
    expect(tokenCount(model)).toBe(32_760);
    if (model.kind !== "wan") throw new Error("wan-1.3b is no Wan model.");
    // Self-attention alone: 4 · 32760² · 1536 · 30 layers.
    expect(wanFlops(model, { frames: 21, height: 60, width: 104 })).toBeGreaterThan(4 * 32_760 ** 2 * 1536 * 30);
  });

  it("give the number of the transformer's parameters that a checkpoint holds", async () => {
    const checkpoint = await checkpointOf("original");
    const file = await openSafetensors(checkpoint.transformer.weights);
    const stored = file.names().map((name) => file.info(name).shape.reduce((product, length) => product * length, 1));
    await file.close();
    const golden = await loadModel(goldenModel);
    expect(parameterCount(golden)).toBe(stored.reduce((sum, count) => sum + count));
    expect(parameterCount(await loadModel("wan-1.3b"))).toBe(1_418_996_800);
  });

  it("are not for the commands of the DiT benchmark", async () => {
    await expect(loadDitModel("wan-tiny")).rejects.toThrow("wan-tiny is a wan model: choose a dit model");
  });
});

describe("a plan for Wan", () => {
  it("splits attention by heads and the feed-forward net by columns, unless it says otherwise", () => {
    const plan = planSchema.parse({ layers: [{ path: "blocks.*.ffn.0", split: "replicated" }] });
    const splits = ["self_attn.q", "cross_attn.v", "self_attn.o", "ffn.0", "ffn.2", "norm3"].map((path) =>
      splitOf(plan, wanLayerRules, `blocks.7.${path}`),
    );
    expect(splits).toEqual(["heads", "heads", "row", "replicated", "row", "replicated"]);
    expect(splitOf(plan, ditLayerRules, "blocks.0.self_attn.q")).toBe("replicated");
  });

  it("has the VAE in fp16 beside bf16, unless it or --vae-dtype says otherwise", async () => {
    const model = await loadModel("wan-tiny");
    const dtypeOf = async (flags: PlanFlags) => vaeDtype(await resolvePlan(flags, model, undefined, 1));
    expect(await dtypeOf({})).toBe("fp16");
    expect(await dtypeOf({ dtype: "fp32" })).toBe("fp32");
    expect(await dtypeOf({ dtype: "fp32", vaeDtype: "fp16" })).toBe("fp16");
    const plan = join(folder, "vae.yaml");
    writeFileSync(plan, "vae: { dtype: bf16 }");
    expect(await dtypeOf({ plan })).toBe("bf16");
    expect(await dtypeOf({ plan, vaeDtype: "fp32" })).toBe("fp32");
    await expect(resolvePlan({ plan }, await loadModel("dit"), undefined, 1)).rejects.toThrow(
      "The plan sets vae.dtype bf16, but dit has no VAE: leave it out.",
    );
  });

  it("may use cfg 2, and no more", async () => {
    const model = await loadModel("wan-tiny");
    expect((await resolvePlan({ cfg: 2, cp: 2, tp: 2 }, model, 8, 1)).mesh).toEqual({ cfg: 2, cp: 2, tp: 2 });
    await expect(resolvePlan({ cfg: 3 }, model, 3, 1)).rejects.toThrow("cfg must be 1 or 2, but it is 3");
    await expect(resolvePlan({ tp: 3 }, model, 3, 1)).rejects.toThrow(
      "The 4 heads of wan-tiny cannot be shared by tp 3",
    );
    await expect(resolvePlan({ cp: 9 }, model, 9, 1, { size: { frames: 1, height: 4, width: 8 } })).rejects.toThrow(
      "wan-tiny has 8 tokens here, fewer than the 9 workers",
    );
  });

  it.for([
    ["norms: { sequenceParallel: true }", "sets norms.sequenceParallel, which wan-tiny does not have"],
    ["layers: [{ path: blocks.*.attn.qkv, split: heads }]", "its layers are blocks.*.self_attn.q, "],
    ["layers: [{ path: blocks.*.self_attn.q, split: row }]", "must be one of heads, replicated"],
    [
      "layers: [{ path: blocks.*.cross_attn.o, split: replicated }]",
      "splits blocks.0.cross_attn.q as heads and blocks.0.cross_attn.o as replicated",
    ],
  ] as const)("%s is refused", async ([text, message]) => {
    const plan = join(folder, "plan.yaml");
    writeFileSync(plan, text);
    await expect(resolvePlan({ plan }, await loadModel("wan-tiny"), undefined, 1)).rejects.toThrow(message);
  });
});
