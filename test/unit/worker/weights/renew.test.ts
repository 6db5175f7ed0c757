import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { loadWanModel } from "../../../../src/models/load.js";
import type { WanModel } from "../../../../src/models/schema.js";
import { builtKernels } from "../../../../src/paths.js";
import { planSchema } from "../../../../src/plan/schema.js";
import type { WanWeights } from "../../../../src/protocol/job.js";
import { Context } from "../../../../src/worker/comm/context.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import type { Tensor } from "../../../../src/worker/runtime/tensor.js";
import { changedBy, loadTransformer, withTransformerSource } from "../../../../src/worker/tasks/wan-session.js";
import { KeptWeights } from "../../../../src/worker/weights/kept.js";
import { writeRandomLora } from "../../../lora.js";
import { checkpointOf, soloStore, weightsOf } from "../wan/golden.js";

let folder: string;
let device: Device;
let model: WanModel;
let weights: WanWeights;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  device = Device.open(builtKernels("cpu"), 0);
  model = await loadWanModel(await checkpointOf("original"));
  weights = await weightsOf("original");
  await writeRandomLora(join(folder, "some.safetensors"), model, /^blocks\.1\.(?:ffn|self_attn)/);
});
afterAll(() => {
  device.close();
  rmSync(folder, { recursive: true, force: true });
});

const layers = ["blocks.0.ffn.0", "blocks.1.ffn.0", "blocks.1.self_attn.qkv", "blocks.2.ffn.2"];

it.for(["e4m3", "bf16"] as const)(
  "weights are renewed where they are, and are the same bytes without a LoRA: %s",
  async (linear) => {
    const plan = planSchema.parse({ dtype: "bf16", linear: { dtype: linear } });
    const context = await Context.create(device, soloStore(), plan);
    const size = { frames: 3, height: 8, width: 12 };
    const kept = new KeptWeights(device);
    const load = () => loadTransformer(context, { model, weights }, 64, size, undefined, kept);
    await load();
    const parts = () =>
      Promise.all(layers.map((layer) => kept.of(layer, () => Promise.reject(new Error(`${layer} is not kept.`)))));
    const bytes = async () => {
      const all: { address: number; bytes: Uint8Array }[] = [];
      for (const { tensors } of await parts()) {
        for (const each of Object.values(tensors).flatMap((w): Tensor[] => (w.rowScale ? [w, w.rowScale] : [w])))
          all.push({ address: each.address, bytes: await device.download(each) });
      }
      return { all, numbers: (await parts()).map(({ numbers = [] }) => [...numbers]) };
    };
    const before = await bytes();
    const held = kept.bytes;
    const loras = [{ file: join(folder, "some.safetensors"), strength: 1 }];
    const changed = await changedBy(loras, model);
    const renew = (own: typeof loras) =>
      withTransformerSource(device, { model, weights, loras: own }, (source) =>
        kept.renew(source, (name) => changed.has(name)),
      );
    expect(await renew(loras)).toBe(linear === "e4m3");
    const during = await bytes();
    expect(during.all.map(({ address }) => address)).toEqual(before.all.map(({ address }) => address));
    const differ = during.all.map((each, i) => Buffer.compare(each.bytes, before.all[i]?.bytes ?? Buffer.of()) !== 0);
    // Weight, with its scales in e4m3, and bias of each layer: biases stay, and so do layers that no LoRA is for.
    const own = linear === "e4m3" ? [true, true, false] : [true, false];
    const other = own.map(() => false);
    expect(differ).toEqual([...other, ...own, ...own, ...other]);
    expect(kept.bytes).toBe(held);

    // Weights that are loaded with the LoRA are those that it was laid over.
    const fresh = new KeptWeights(device);
    await loadTransformer(context, { model, weights, loras }, 64, size, undefined, fresh);
    for (const [index, layer] of layers.entries()) {
      const { tensors, numbers = [] } = await fresh.of(layer, () => Promise.reject(new Error("not kept")));
      const here = (await parts())[index];
      expect(numbers).toEqual(here?.numbers ?? []);
      for (const [name, w] of Object.entries(tensors)) {
        const twin = here?.tensors[name];
        if (!twin) throw new Error(`${layer} has no ${name}.`);
        expect(Buffer.compare(await device.download(w), await device.download(twin)), `${layer} ${name}`).toBe(0);
      }
    }
    fresh.free();

    await renew([]);
    const after = await bytes();
    expect(after.numbers).toEqual(before.numbers);
    for (const [i, each] of after.all.entries())
      expect(Buffer.compare(each.bytes, before.all[i]?.bytes ?? Buffer.of())).toBe(0);
    kept.free();
    await context.close();
  },
);
