import { DitrunError } from "../../protocol/failure.js";
import type { Job, WanVaeTask } from "../../protocol/job.js";
import type { ForwardRank } from "../../protocol/results.js";
import { Context } from "../context.js";
import { Device } from "../device/device.js";
import { type LatentSize, videoFrames, WanVae } from "../models/wan/vae/vae.js";
import type { Store } from "../store.js";
import { toFloat32 } from "../weights/numbers.js";
import { openSafetensors, writeSafetensors } from "../weights/safetensors.js";
import type { TensorFile } from "../weights/tensor-file.js";
import { openTorchCheckpoint } from "../weights/torch-checkpoint.js";
import { requireFinite } from "./session.js";

/** Decodes a latent over all ranks, or encodes a video on rank 0, with weights of a checkpoint file. */
export async function runWanVae(job: Job, task: WanVaeTask, store: Store): Promise<ForwardRank> {
  const device = Device.open(job.kernels, Number(process.env.LOCAL_RANK ?? 0));
  const context = await Context.create(device, store, task.plan);
  const file = await openWeights(task.model.file);
  const decode = task.direction === "decode";
  const vae = await WanVae.load(context, file, { decoder: decode, encoder: !decode });
  await file.close();
  const { values, size } = await readInput(task);

  await context.prepare(() => (decode ? vae.measureDecode(size) : vae.measureEncode(size)));
  const started = performance.now();
  const result = decode ? await decodeWhole(vae, values, size, task.clamp) : await vae.encode(values, size);
  const milliseconds = performance.now() - started;
  if (store.rank === 0) {
    const data = new Uint8Array(result.buffer, result.byteOffset, result.byteLength);
    requireFinite(task, data);
    const shape = decode
      ? [3, videoFrames(size.frames), 8 * size.height, 8 * size.width]
      : [16, size.frames, size.height, size.width];
    await writeSafetensors(task.output, { output: { dtype: "F32", shape, data } });
  }
  const peakMemoryBytes = device.kernels.memoryUsed().peak;
  await device.synchronize();
  await context.close();
  device.close();
  return { rank: store.rank, device: device.info.name, milliseconds, peakMemoryBytes };
}

function openWeights(path: string): Promise<TensorFile> {
  return path.endsWith(".pth") ? openTorchCheckpoint(path) : openSafetensors(path);
}

/** @throws DitrunError when the tensor is no latent, or no video that the VAE can take. */
async function readInput({ input, direction }: WanVaeTask): Promise<{ values: Float32Array; size: LatentSize }> {
  const file = await openSafetensors(input.file);
  try {
    const { dtype, shape } = file.info(input.tensor);
    const values = toFloat32(dtype, await file.read(input.tensor));
    const [channels, frames = 0, height = 0, width = 0] = shape;
    const found = `${input.file}: tensor ${input.tensor} has the shape [${shape.join(", ")}]`;
    if (direction === "decode") {
      if (shape.length === 4 && channels === 16) return { values, size: { frames, height, width } };
      throw new DitrunError(`${found}; a latent has [16, frames, height, width].`);
    }
    const whole = (frames - 1) % 4 === 0 && height % 8 === 0 && width % 8 === 0;
    if (shape.length === 4 && channels === 3 && whole) {
      return { values, size: { frames: 1 + (frames - 1) / 4, height: height / 8, width: width / 8 } };
    }
    throw new DitrunError(`${found}; a video has [3, 4n + 1 frames, height, width], both sides multiples of 8.`);
  } finally {
    await file.close();
  }
}

/** The video [3, frames, height, width]; empty on ranks other than 0. */
async function decodeWhole(vae: WanVae, latent: Float32Array, size: LatentSize, clamp: boolean): Promise<Float32Array> {
  const plane = 64 * size.height * size.width;
  const frames = videoFrames(size.frames);
  let video = new Float32Array();
  for await (const chunk of vae.decode(latent, size, { clamp })) {
    if (chunk.firstFrame === 0) video = new Float32Array(3 * frames * plane);
    chunk.pixels.forEach((value, index) => {
      const pixel = Math.floor(index / 3);
      video[(index % 3) * frames * plane + chunk.firstFrame * plane + pixel] = value;
    });
  }
  return video;
}
