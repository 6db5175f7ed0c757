import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toFloat32 } from "../../../../src/formats/numbers.js";
import { builtKernels } from "../../../../src/paths.js";
import { experts } from "../../../../src/protocol/expert.js";
import { Context } from "../../../../src/worker/comm/context.js";
import { copy } from "../../../../src/worker/ops/copy.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { type Tensor, tensorBytes } from "../../../../src/worker/runtime/tensor.js";
import { loadTransformer } from "../../../../src/worker/tasks/wan-session.js";
import { weightsOf } from "../../../../src/worker/tasks/wan-transformers.js";
import { readTensor, relativeL2 } from "../../../compare.js";
import { soloStore } from "./golden.js";
import { caseOfA14b, runsOfA14b, taskOfA14b } from "./golden22.js";

const golden = (name: string) => readTensor(caseOfA14b, name);
const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
const TOKENS = 36;

describe.for(experts)("the golden transformer for %s noise, fp32", (expert) => {
  let device: Device;
  let context: Context;
  let run: (latent: Float32Array, t: number, text: Float32Array) => Promise<Float32Array>;
  const taps = new Map<string, Tensor>();
  const first = runsOfA14b.sample.experts.indexOf(expert);

  beforeAll(async () => {
    const { model, weights, plan, size } = await taskOfA14b("sample", {});
    device = Device.open(builtKernels("cpu"), 0);
    context = await Context.create(device, soloStore(), plan);
    const transformer = await loadTransformer(context, { model, weights: weightsOf(expert, weights) }, 48, size);
    const latent = device.allocatePersistent("fp32", [16, size.frames, size.height, size.width]);
    const output = device.allocatePersistent("fp32", latent.shape);
    await context.prepare(() => {
      transformer.embedText("cond");
      transformer.forward("cond", latent, output);
    });
    const tap = (name: string, x: Tensor) => {
      const kept = taps.get(name) ?? device.allocatePersistent(x.dtype, x.shape);
      taps.set(name, kept);
      copy(device, kept, x, tensorBytes(x.dtype, x.shape));
    };
    run = async (values, t, text) => {
      await device.upload(latent, bytesOf(values));
      await transformer.setText("cond", text, tap);
      await transformer.setTime(t);
      transformer.forward("cond", latent, output, tap);
      await device.synchronize();
      return toFloat32("F32", await device.download(output));
    };
  });
  afterAll(async () => {
    await context.close();
    device.close();
  });

  const latentBefore = (step: number) => golden(step === 0 ? "sample.noise" : `sample.latent.${step - 1}`);

  it("has the recorded activations in its first step", async () => {
    const [t = 0] = await golden(`dit.${expert}.t`);
    const output = await run(await latentBefore(first), t, await golden("t5.prompt"));
    expect(relativeL2(output, await golden(`dit.${expert}.output`))).toBeLessThan(1e-4);
    const tapped = async (name: string) => {
      const x = taps.get(name);
      if (!x) throw new Error(`Nothing was seen of ${name}.`);
      return toFloat32("F32", await device.download(x));
    };
    const names = ["text_embedding", "time_embedding", "time_projection", "patch_embedding"];
    for (const name of [...names, "block.0", "block.1", "head"]) {
      const recorded = await golden(`dit.${expert}.${name}`);
      // Recorded with channels first.
      const wanted =
        name === "patch_embedding"
          ? recorded.map((_, i) => recorded[(i % 64) * TOKENS + Math.floor(i / 64)] ?? Number.NaN)
          : recorded;
      // Of the text embedding the first rows are recorded: the rest is of the padding.
      expect(relativeL2((await tapped(name)).subarray(0, wanted.length), wanted), name).toBeLessThan(1e-4);
    }
    for (const [branch, before, after, gated] of [
      ["self_attn", "patch_embedding", "block.0.before_cross_attn", true],
      ["cross_attn", "block.0.before_cross_attn", "block.0.after_cross_attn", false],
      ["ffn", "block.0.after_cross_attn", "block.0", true],
    ] as const) {
      const [start, end] = [await tapped(before), await tapped(after)];
      const gate = gated ? await tapped(`block.0.${branch}_gate`) : Float32Array.of(1);
      const recorded = await golden(`dit.${expert}.block.0.${branch}`);
      const wanted = recorded.map((y, i) => y * (gate[i % gate.length] ?? Number.NaN));
      const added = end.map((value, i) => value - (start[i] ?? Number.NaN));
      expect(relativeL2(added, wanted), branch).toBeLessThan(1e-4);
    }
  });

  it("predicts what was recorded in each of its steps, for both texts", async () => {
    const timesteps = await golden("sample.timesteps");
    for (const [step, own] of runsOfA14b.sample.experts.entries()) {
      if (own !== expert) continue;
      const latent = await latentBefore(step);
      for (const [slot, text] of [
        ["cond", "t5.prompt"],
        ["uncond", "t5.negative"],
      ] as const) {
        const output = await run(latent, timesteps[step] ?? 0, await golden(text));
        expect(relativeL2(output, await golden(`sample.${slot}.${step}`)), `${slot} ${step}`).toBeLessThan(1e-4);
      }
    }
  });
});
