import { DitrunError } from "../../failure.js";
import { toFloat32 } from "../../formats/numbers.js";
import { openSafetensors, writeSafetensors } from "../../formats/safetensors.js";
import type { LatentSize } from "../../models/schema.js";
import { openPart } from "../../models/wan/tensors/open-part.js";
import type { WanVaeTask } from "../../protocol/job.js";
import type { WanVaeRank } from "../../protocol/results.js";
import type { Context } from "../comm/context.js";
import { videoFrames, WanVae } from "../models/wan/vae/vae.js";
import type { Tensor } from "../runtime/tensor.js";
import type { Store } from "../store.js";
import { whileOpen } from "../weights/while-open.js";
import { requireFiniteInput } from "./finite.js";
import type { Frame } from "./frame.js";

/** Decodes a latent over all ranks, or encodes a video (every rank the whole of it). */
export async function runWanVae(frame: Frame, task: WanVaeTask, store: Store): Promise<WanVaeRank> {
  return frame.alone(task.plan, store, async (context) => {
    const { device } = context;
    const decode = task.direction === "decode";
    const vae = await loadVae(context, task.model.weights, { decoder: decode, encoder: !decode });
    const { values, size } = await readInput(task);
    const { pixels = "fp32" } = task;
    await context.prepare(() => (decode ? vae.measureDecode(size, pixels) : vae.measureEncode(size)));
    const { frames, height, width } = size;
    const latent = decode ? device.allocatePersistent("fp32", [16, frames, height, width]) : undefined;
    if (latent) await device.upload(latent, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));

    const milliseconds: number[] = [];
    let result: Float32Array = new Float32Array();
    for (let iteration = 0; iteration < task.iterations; iteration++) {
      await store.barrier(`wan-vae/${iteration}`);
      const started = performance.now();
      const chunks = latent ? await decodeAll(vae, latent, task) : await vae.encode(values, size);
      milliseconds.push(performance.now() - started);
      if (store.rank === 0) result = chunks instanceof Float32Array ? chunks : channelsFirst(chunks, size);
    }
    if (store.rank === 0 && task.output !== undefined && pixels === "fp32") {
      const data = new Uint8Array(result.buffer, result.byteOffset, result.byteLength);
      const shape = decode ? [3, videoFrames(frames), 8 * height, 8 * width] : [16, frames, height, width];
      await writeSafetensors(task.output, { output: { dtype: "F32", shape, data } });
    }
    const peakMemoryBytes = device.kernels.memoryUsed().peak;
    await device.synchronize();
    vae.close();
    return { rank: store.rank, device: device.info.name, milliseconds, peakMemoryBytes };
  });
}

async function loadVae(
  context: Context,
  weights: WanVaeTask["model"]["weights"],
  wanted: { decoder: boolean; encoder: boolean },
): Promise<WanVae> {
  if (weights.from === "random") return WanVae.random(context, weights.seed, wanted);
  const file = await openPart(weights.file, "VAE");
  return whileOpen(context.device, file, () => WanVae.load(context, file, wanted));
}

interface Input {
  readonly values: Float32Array;
  readonly size: LatentSize;
}

/** @throws DitrunError when the tensor is no latent, or no video that the VAE can take. */
async function readInput({ input, direction }: WanVaeTask): Promise<Input> {
  if (input.from === "size") {
    const { frames, height, width } = input;
    const count = direction === "decode" ? 16 * frames * height * width : 192 * videoFrames(frames) * height * width;
    return {
      values: Float32Array.from({ length: count }, (_, index) => Math.sin(index)),
      size: { frames, height, width },
    };
  }
  const file = await openSafetensors(input.file);
  try {
    const { dtype, shape } = file.info(input.tensor);
    const values = toFloat32(dtype, await file.read(input.tensor));
    requireFiniteInput(input.file, input.tensor, values);
    const [channels, frames = 0, height = 0, width = 0] = shape;
    const found = `${input.file}: tensor ${input.tensor} has the shape [${shape.join(", ")}]`;
    if (direction === "decode") {
      if (shape.length === 4 && channels === 16) return { values, size: { frames, height, width } };
      throw new DitrunError("ERR_TENSOR_SHAPE", `${found}; a latent has [16, frames, height, width].`);
    }
    const whole = (frames - 1) % 4 === 0 && height % 8 === 0 && width % 8 === 0;
    if (shape.length === 4 && channels === 3 && whole) {
      return { values, size: { frames: 1 + (frames - 1) / 4, height: height / 8, width: width / 8 } };
    }
    throw new DitrunError(
      "ERR_TENSOR_SHAPE",
      `${found}; a video has [3, 4n + 1 frames, height, width], both sides multiples of 8.`,
    );
  } finally {
    await file.close();
  }
}

/** The frames [frame, height, width, 3] of every chunk; none on ranks other than 0, and none of bytes. */
async function decodeAll(vae: WanVae, latent: Tensor, { clamp, pixels }: WanVaeTask): Promise<Float32Array[]> {
  const chunks: Float32Array[] = [];
  if (pixels === "u8") {
    for await (const _chunk of vae.decodeToBytes(latent));
    return chunks;
  }
  for await (const { pixels } of vae.decode(latent, { clamp })) chunks.push(pixels);
  return chunks;
}

/** The video [3, frames, height, width]. */
function channelsFirst(chunks: readonly Float32Array[], { frames, height, width }: LatentSize): Float32Array {
  const plane = videoFrames(frames) * 64 * height * width;
  const video = new Float32Array(3 * plane);
  let first = 0;
  for (const pixels of chunks) {
    pixels.forEach((value, index) => {
      video[(index % 3) * plane + first + Math.floor(index / 3)] = value;
    });
    first += pixels.length / 3;
  }
  return video;
}
