import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toFloat32 } from "../../../../src/formats/numbers.js";
import { loadWanModel } from "../../../../src/models/load.js";
import { builtKernels } from "../../../../src/paths.js";
import { planSchema } from "../../../../src/plan/schema.js";
import { Context } from "../../../../src/worker/comm/context.js";
import { relativeBucket } from "../../../../src/worker/models/wan/relative-bias.js";
import type { TextEncoder } from "../../../../src/worker/models/wan/text-encoder.js";
import type { WanTransformer } from "../../../../src/worker/models/wan/transformer.js";
import { copy } from "../../../../src/worker/ops/copy.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { freeGraph, launchGraph } from "../../../../src/worker/runtime/graph.js";
import { Region } from "../../../../src/worker/runtime/region.js";
import { elements, type Tensor, tensorBytes } from "../../../../src/worker/runtime/tensor.js";
import { loadTextEncoder, loadTransformer } from "../../../../src/worker/tasks/wan-session.js";
import { readTensor, relativeL2 } from "../../../compare.js";
import { caseFile, checkpointOf, layouts, readIds, soloStore, weightsOf } from "./golden.js";

const size = { frames: 3, height: 8, width: 12 };
const tolerance = 1e-4;
const golden = (name: string) => readTensor(caseFile, name);
const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** One worker with the golden checkpoint of a layout, in this process. */
async function open(layout: (typeof layouts)[number], dtype: "fp32" | "bf16") {
  const device = Device.open(builtKernels("cpu"), 0);
  const plan = planSchema.parse({ dtype });
  const model = await loadWanModel(await checkpointOf(layout));
  const weights = await weightsOf(layout);
  const context = await Context.create(device, soloStore(), plan);
  const region = new Region();
  const encoder = await device.within(region, () => loadTextEncoder(context, model, weights));
  const transformer = await loadTransformer(context, { model, weights }, encoder.model.width, size);
  const latent = device.allocatePersistent("fp32", [16, 3, 8, 12]);
  const output = device.allocatePersistent("fp32", latent.shape);
  await context.prepare(() => {
    encoder.forward();
    transformer.embedText("cond");
    transformer.forward("cond", latent, output);
  });
  await device.upload(latent, bytesOf(await golden("noise")));
  return { device, context, encoder, region, transformer, latent, output };
}

async function values(device: Device, x: Tensor): Promise<Float32Array> {
  return toFloat32("F32", await device.download(x));
}

describe.for(layouts)("the golden Wan in float32 on one worker, %s layout", (layout) => {
  let worker: Awaited<ReturnType<typeof open>>;
  let encoder: TextEncoder;
  let transformer: WanTransformer;
  const taps = new Map<string, Tensor>();

  beforeAll(async () => {
    worker = await open(layout, "fp32");
    ({ encoder, transformer } = worker);
    const { device, latent, output } = worker;
    const tap = (name: string, x: Tensor) => {
      const kept = device.allocatePersistent(x.dtype, x.shape);
      taps.set(name, kept);
      copy(device, kept, x, tensorBytes(x.dtype, x.shape));
    };
    await transformer.setText("cond", await golden("t5.prompt"), tap);
    await transformer.setTime(567);
    transformer.forward("cond", latent, output, tap);
    await device.synchronize();
  });
  afterAll(async () => {
    await worker.context.close();
    worker.device.close();
  });

  async function tapped(name: string): Promise<Float32Array> {
    const x = taps.get(name);
    if (!x) throw new Error(`Nothing was seen of ${name}.`);
    return values(worker.device, x);
  }

  it.for(["prompt", "negative"] as const)("encodes the %s", async (which) => {
    const context = await encoder.encode(await readIds(which));
    expect(relativeL2(await values(worker.device, context), await golden(`t5.${which}`))).toBeLessThan(tolerance);
  });

  it("embeds patches; recorded with channels first", async () => {
    const recorded = await golden("dit.patch_embedding"); // [width, tokens]
    const tokens = 72;
    const transposed = recorded.map((_, i) => recorded[(i % 128) * tokens + Math.floor(i / 128)] ?? Number.NaN);
    expect(relativeL2(await tapped("patch_embedding"), transposed)).toBeLessThan(tolerance);
  });

  it.for(["time_embedding", "time_projection", "text_embedding", "block.0", "block.1", "block.2", "head"])(
    "agrees in %s",
    async (name) => {
      expect(relativeL2(await tapped(name), await golden(`dit.${name}`))).toBeLessThan(tolerance);
    },
  );

  it.each([
    ["self_attn", "patch_embedding", "block.0.before_cross_attn"],
    ["ffn", "block.0.after_cross_attn", "block.0"],
  ])("agrees in what %s adds to the residual stream, gated", async (branch, before, after) => {
    const [start, end] = [await tapped(before), await tapped(after)];
    const gate = await tapped(`block.0.${branch}_gate`);
    const added = end.map((value, i) => value - (start[i] ?? Number.NaN));
    const expected = await golden(`dit.block.0.${branch}`);
    expect(
      relativeL2(
        added,
        expected.map((y, i) => y * (gate[i % gate.length] ?? Number.NaN)),
      ),
    ).toBeLessThan(tolerance);
  });

  it("agrees in what cross-attention adds to the residual stream", async () => {
    const before = await tapped("block.0.before_cross_attn");
    const after = await tapped("block.0.after_cross_attn");
    const added = after.map((value, i) => value - (before[i] ?? Number.NaN));
    expect(relativeL2(added, await golden("dit.block.0.cross_attn"))).toBeLessThan(tolerance);
  });

  it("agrees in the output", async () => {
    expect(relativeL2(await values(worker.device, worker.output), await golden("dit.output"))).toBeLessThan(tolerance);
  });

  it("gives the same bits as a captured graph, whose time step may change", async () => {
    const { device, latent, output } = worker;
    const eager = await values(device, output);
    const graph = device.capture(() => transformer.forward("cond", latent, output));
    const replay = async (t: number) => {
      await transformer.setTime(t);
      launchGraph(device, graph);
      await device.synchronize();
      return values(device, output);
    };
    const other = await replay(100);
    expect(relativeL2(other, eager)).toBeGreaterThan(1e-3);
    expect(await replay(567)).toEqual(eager);
    freeGraph(device, graph);
  });

  it("refuses what does not fit, with the numbers", async () => {
    const { device, latent, output } = worker;
    await expect(encoder.encode([])).rejects.toThrow("A prompt of 0 tokens cannot be encoded: give 1 to 512");
    await expect(encoder.encode([153])).rejects.toThrow("token 153, but the text encoder's table has 153 rows");
    await expect(transformer.setText("cond", new Float32Array(513 * 64))).rejects.toThrow("513 rows of 64");
    expect(() => transformer.forward("uncond", latent, output)).toThrow('its "uncond" forward before');
    const other = device.allocatePersistent("fp32", [16, 3, 8, 10]);
    expect(() => transformer.forward("cond", other, output)).toThrow("[16,3,8,10]");
  });
});

describe("the golden Wan in bf16 on one worker", () => {
  it("stays within bf16's rounding of the reference, and does round", async () => {
    const { device, context, encoder, transformer, latent, output } = await open("original", "bf16");
    const text = await encoder.encode(await readIds("prompt"));
    const encoded = relativeL2(await values(device, text), await golden("t5.prompt"));
    await transformer.setText("cond", text);
    await transformer.setTime(567);
    transformer.forward("cond", latent, output);
    const error = relativeL2(await values(device, output), await golden("dit.output"));
    await context.close();
    device.close();
    expect(elements(output.shape)).toBe(16 * 3 * 8 * 12);
    // Scores without a scale are large, and their rounding moves the text encoder's softmax more than the transformer's.
    expect(encoded).toBeLessThan(0.06);
    expect(error).toBeLessThan(0.01);
    for (const measured of [encoded, error]) expect(measured).toBeGreaterThan(1e-4);
  });
});

describe("a text encoder that is done with", () => {
  it("gives its memory back, and the transformer goes on", async () => {
    const { device, context, encoder, region, transformer, latent, output } = await open("original", "fp32");
    await transformer.setText("cond", await encoder.encode(await readIds("prompt")));
    await device.synchronize();
    const before = device.kernels.memoryUsed().now;
    device.free(region);
    const { vocabulary, width } = encoder.model;
    expect(before - device.kernels.memoryUsed().now).toBeGreaterThan(4 * vocabulary * width);
    await transformer.setTime(567);
    transformer.forward("cond", latent, output);
    expect(relativeL2(await values(device, output), await golden("dit.output"))).toBeLessThan(tolerance);
    await context.close();
    device.close();
  });
});

describe("relative position buckets", () => {
  it("are exact to 7 apart, then grow with the logarithm to 128; keys after the query take the second half", () => {
    const offsets = [0, -1, -7, -8, -11, -12, -15, -16, -31, -32, -63, -64, -127, -128, -500];
    expect(offsets.map(relativeBucket)).toEqual([0, 1, 7, 8, 8, 9, 9, 10, 11, 12, 13, 14, 15, 15, 15]);
    expect([1, 8, 16, 500].map(relativeBucket)).toEqual([17, 24, 26, 31]);
  });
});
