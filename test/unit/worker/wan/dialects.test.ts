import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { toFloat32 } from "../../../../src/formats/numbers.js";
import { writeSafetensors } from "../../../../src/formats/safetensors.js";
import type { WanModel } from "../../../../src/models/schema.js";
import { builtKernels } from "../../../../src/paths.js";
import { planSchema } from "../../../../src/plan/schema.js";
import { Context } from "../../../../src/worker/comm/context.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { loadTransformer } from "../../../../src/worker/tasks/wan-session.js";
import { ggmlTypes, gguf } from "../../../gguf-files.js";
import { torchZip } from "../../../torch-files.js";
import {
  floats,
  isLinear,
  plain,
  type Quantised,
  quantised,
  renamed,
  store,
  type Tensors,
  transformerShapes,
  type Values,
} from "../../models/wan/small-model.js";
import { soloStore } from "./golden.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-dialects-"));
afterAll(() => rmSync(folder, { recursive: true }));

const shapes = transformerShapes();
const model: WanModel = {
  ...{ kind: "wan", name: "small", patch: 2, width: 32, ffn: 64, heads: 2, layers: 2, channels: 16, freqDim: 16 },
  ...{ textLength: 8, epsilon: 1e-6 },
};
const size = { frames: 1, height: 4, width: 4 };

/** One forward of the same numbers by the transformer in a file. */
async function forward(transformer: string): Promise<Float32Array> {
  const device = Device.open(builtKernels("cpu"), 0);
  const context = await Context.create(device, soloStore(), planSchema.parse({ dtype: "fp32" }));
  try {
    const weights = { from: "checkpoint", transformer, textEncoder: transformer, vae: transformer } as const;
    const loaded = await loadTransformer(context, { model, weights }, 32, size);
    const latent = device.allocatePersistent("fp32", [16, 1, 4, 4]);
    const output = device.allocatePersistent("fp32", latent.shape);
    const text = device.allocatePersistent("fp32", [3, 32]);
    await context.prepare(() => {
      loaded.embedText("cond");
      loaded.forward("cond", latent, output);
    });
    for (const [name, x] of Object.entries({ latent, text })) {
      const values = floats(name, x.shape);
      await device.upload(x, new Uint8Array(values.buffer));
    }
    await loaded.setText("cond", text);
    await loaded.setTime(567);
    loaded.forward("cond", latent, output);
    await device.synchronize();
    return toFloat32("F32", await device.download(output)).slice();
  } finally {
    await context.close();
    device.close();
  }
}

/** Of the values themselves, in float32. */
async function exact(values: Values): Promise<Float32Array> {
  const path = join(folder, "exact.safetensors");
  const tensors = [...shapes].map(([name, shape]) => [name, store("F32", shape, values[name] ?? new Float32Array())]);
  await writeSafetensors(path, Object.fromEntries(tensors));
  return forward(path);
}

const put = (name: string, bytes: Uint8Array) => {
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
};

describe("a transformer computes the same from any file, bit by bit, as from its values in float32", () => {
  const scaled: [string, Quantised, Tensors][] = [
    [
      "ComfyUI's scaled fp8",
      { dtype: "F8_E4M3", suffix: "scale_weight" },
      { scaled_fp8: { dtype: "F8_E4M3", shape: [0], data: new Uint8Array() } },
    ],
    ["plain e5m2", { dtype: "F8_E5M2" }, {}],
    ["LightX2V's int8", { dtype: "I8", suffix: "weight_scale", scaleShape: (rows) => [rows, 1] }, {}],
  ];
  it.for(scaled)("%s", async ([name, how, more]) => {
    const { tensors, values } = quantised(shapes, how);
    const path = join(folder, `${name.replaceAll(/\W/g, "-")}.safetensors`);
    await writeSafetensors(
      path,
      renamed({ ...tensors, ...more }, (each) => `model.diffusion_model.${each}`),
    );
    const output = await forward(path);
    expect(output.every(Number.isFinite)).toBe(true);
    expect(output).toEqual(await exact(values));
  });

  it("F16 in a pickle", async () => {
    const { tensors, values } = plain(shapes, "F16");
    expect(await forward(put("half.pth", torchZip(tensors)))).toEqual(await exact(values));
  });

  it("Q8_0 in GGUF", async () => {
    const { values } = plain(shapes, "F32");
    const tensors = [...shapes].map(([name, shape]) => {
      const numbers = (values[name] ?? new Float32Array()).map((value) => Math.max(value, -127 / 64));
      values[name] = numbers;
      const data = store("F32", shape, numbers).data;
      if (!isLinear(name)) return [name, { type: ggmlTypes.F32, shape, data }];
      // 2^-6 in float16, and 32 numbers of it.
      const blocks = Array.from({ length: numbers.length / 32 }, (_, block) => [
        ...[0x00, 0x24],
        ...Int8Array.from(numbers.subarray(32 * block, 32 * block + 32), (value) => 64 * value),
      ]);
      return [name, { type: ggmlTypes.Q8_0, shape, data: Uint8Array.from(blocks.flat()) }];
    });
    expect(await forward(put("q8.gguf", gguf(Object.fromEntries(tensors))))).toEqual(await exact(values));
  });
});
