import { describe, expect, it } from "vitest";
import { ditLayerRules, splitOf } from "../../../src/models/layer-rules.js";
import { loadModel } from "../../../src/models/load.js";
import type { DitModel, WanModel } from "../../../src/models/schema.js";
import { builtKernels } from "../../../src/paths.js";
import { planSchema } from "../../../src/plan/schema.js";
import { Context } from "../../../src/worker/comm/context.js";
import { Dit, ditFlops } from "../../../src/worker/models/dit/dit.js";
import { wanFlops } from "../../../src/worker/models/wan/transformer.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { RandomWeights } from "../../../src/worker/weights/source.js";
import { makeStores } from "./in-process-ranks.js";

const dit: DitModel = {
  ...{ kind: "dit", name: "small", imageSize: 8, channels: 3, patch: 2, width: 32, depth: 3, heads: 2, classes: 4 },
};

describe("the operations of one forward", () => {
  it("of a DiT are those of its linear layers and attention, each once", () => {
    const tokens = 16;
    const perBlock = 2 * tokens * (32 * 96 + 32 * 32 + 32 * 128 + 128 * 32) + 2 * 2 * tokens * tokens * 32;
    expect(ditFlops(dit)).toBe(3 * perBlock + 2 * tokens * (12 * 32 + 32 * 12));
  });

  it("of a DiT are what its launches do, the time's embedding aside", async () => {
    const device = Device.open(builtKernels("cpu"), 0);
    const [store] = makeStores(1);
    if (!store) throw new Error("There is one rank.");
    const plan = planSchema.parse({ dtype: "fp32" });
    const context = await Context.create(device, store, plan);
    const source = new RandomWeights(device, 1);
    const model = await Dit.load({ context, source, splitOf: (path) => splitOf(plan, ditLayerRules, path) }, dit);
    await context.prepare(() => model.forward());
    const { events } = await device.record(() => model.forward());
    const time = 2 * 2 * 32 * 32;
    expect(events.reduce((sum, { flops }) => sum + flops, 0)).toBe(model.flops + time);
    await context.close();
    device.close();
  });

  it("of Wan's transformer are those of its linear layers and both attentions, each once", async () => {
    const model = await loadModel("wan-tiny");
    if (model.kind !== "wan") throw new Error("wan-tiny is no Wan model.");
    const small: WanModel = { ...model, ...{ width: 32, ffn: 48, layers: 2, textLength: 5, channels: 4, patch: 2 } };
    const tokens = 3 * 2 * 4;
    const linears = 2 * tokens * (6 * 32 * 32 + 2 * 32 * 48);
    const attention = 2 * 2 * tokens * (tokens + 5) * 32;
    const ends = 2 * tokens * (16 * 32 + 32 * 16);
    expect(wanFlops(small, { frames: 3, height: 4, width: 8 })).toBe(2 * (linears + attention) + ends);
  });
});
