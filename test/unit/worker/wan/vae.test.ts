import { describe, expect, it } from "vitest";
import type { TensorFile } from "../../../../src/formats/tensor-file.js";
import { openTorchCheckpoint } from "../../../../src/formats/torch-checkpoint.js";
import { builtKernels } from "../../../../src/paths.js";
import { type PlanDocument, planSchema } from "../../../../src/plan/schema.js";
import { Context } from "../../../../src/worker/comm/context.js";
import { WanVae } from "../../../../src/worker/models/wan/vae/vae.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { psnr, readTensor, relativeL2 } from "../../../compare.js";
import { caseFile, soloStore } from "./golden.js";

const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Layers whose weight and bias make what norms see next, and those of which the bias alone does. */
const writers = /^(decoder|encoder)\.(conv1|.*\.(residual\.[26]|proj))\.(weight|bias)$/;
const passers = /^(decoder|encoder)\..*\.(shortcut|resample\.1|time_conv)\.bias$/;

/** The golden VAE with all that lies between two norms `factor` times as large: the very same pictures, since norms do not see it. */
function enlarged(file: TensorFile, factor: number): TensorFile {
  const scale = { rows: "one", values: Float32Array.of(factor) } as const;
  return {
    path: file.path,
    about: file.about,
    names: () => file.names(),
    has: (name) => file.has(name),
    info: (name) => ({ ...file.info(name), ...((writers.test(name) || passers.test(name)) && { scale }) }),
    place: (name) => file.place(name),
    read: (name, slice) => file.read(name, slice),
    close: () => file.close(),
  };
}

/** The golden latent decoded, or the golden video encoded, by one worker in this process. */
async function run(direction: "decode" | "encode", document: PlanDocument, factor = 1): Promise<Float32Array> {
  const plan = planSchema.parse(document);
  const device = Device.open(builtKernels("cpu"), 0);
  const context = await Context.create(device, soloStore(), plan);
  const file = await openTorchCheckpoint("test/golden/data/wan/original/Wan2.1_VAE.pth");
  const decode = direction === "decode";
  const size = decode ? { frames: 3, height: 8, width: 12 } : { frames: 3, height: 4, width: 6 };
  try {
    const vae = await WanVae.load(context, enlarged(file, factor), { decoder: decode, encoder: !decode });
    const latent = device.allocatePersistent("fp32", [16, size.frames, size.height, size.width]);
    await context.prepare(() => (decode ? vae.measureDecode(size, "fp32") : vae.measureEncode(size)));
    if (!decode) return await vae.encode(await readTensor(caseFile, "vae.encode.input"), size);
    await device.upload(latent, bytesOf(await readTensor(caseFile, "noise")));
    const video = new Float32Array(3 * 9 * 64 * 96);
    for await (const { firstFrame, pixels } of vae.decode(latent, { clamp: false })) {
      pixels.forEach((value, i) => {
        video[(i % 3) * 9 * 64 * 96 + firstFrame * 64 * 96 + Math.floor(i / 3)] = value;
      });
    }
    await device.synchronize();
    vae.close();
    return video;
  } finally {
    await file.close();
    await context.close();
    device.close();
  }
}

describe("the golden Wan VAE by what it computes in", () => {
  const pixels = () => readTensor(caseFile, "vae.decode.noise");

  // Measured: 66.8 dB in fp16, 48.5 in bf16, 131 in fp32.
  const cases: [string, PlanDocument, number, number][] = [
    ["in a plan of bf16: fp16", { dtype: "bf16" }, 65, 70],
    ["bf16 if asked for", { vae: { dtype: "bf16" } }, 47, 50],
    ["in a plan of fp32: fp32", { dtype: "fp32" }, 120, 150],
  ];
  it.for(cases)("decodes %s", async ([, plan, least, most]) => {
    const ratio = psnr(await run("decode", plan), await pixels());
    expect(ratio).toBeGreaterThan(least);
    expect(ratio).toBeLessThan(most);
  });

  it("decodes in fp16 what lies between norms as large as 300,000", async () => {
    expect(psnr(await run("decode", {}, 2 ** 13), await pixels())).toBeGreaterThan(65);
  });

  it("stops in fp16 where values of millions are too large, and says what takes them", async () => {
    await expect(run("decode", {}, 2 ** 16)).rejects.toThrow(
      "Decoding gave values that are not finite, first in frame 1 of 9 (latent frame 1 of 3): check the weights of the VAE, or try --vae-dtype bf16 or fp32, since its fp16 may be too narrow.",
    );
  });

  // Measured: 8.9e-4; 7.2e-3 in bf16.
  it("encodes in fp16, with as large values", async () => {
    const mean = await readTensor(caseFile, "vae.encode.output");
    expect(relativeL2(await run("encode", {}, 2 ** 13), mean)).toBeLessThan(2.7e-3);
  });
});
