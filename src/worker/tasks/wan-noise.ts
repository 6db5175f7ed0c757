import { DitrunError } from "../../failure.js";
import { toFloat32 } from "../../formats/numbers.js";
import { openSafetensors } from "../../formats/safetensors.js";
import type { WanGenerateTask } from "../../protocol/job.js";
import { torchCpuNoise } from "../../sampling/torch-cpu-noise.js";
import { torchCudaNoise } from "../../sampling/torch-cuda-noise.js";
import type { Device } from "../runtime/device.js";
import type { Tensor } from "../runtime/tensor.js";
import { fillRandom } from "../weights/source.js";
import { requireFiniteInput } from "./finite.js";

type NoiseTask = Pick<WanGenerateTask, "noise" | "size" | "model" | "seed" | "generator">;

/**
 * The initial noise where the host has it, float32 [channels, frames, height, width], the same on every rank: of a file, or as PyTorch
 * draws it. Undefined where the device draws it.
 * @throws DitrunError when the file's tensor has another shape than the latent, or a value that is not finite.
 */
export async function hostNoise(task: NoiseTask): Promise<Float32Array | undefined> {
  const { noise, size, model, seed, generator } = task;
  const shape = [model.channels, size.frames, size.height, size.width];
  if (noise) return readNoise(noise, shape);
  const count = shape.reduce((product, length) => product * length, 1);
  if (generator === "torch-cpu") return torchCpuNoise(BigInt(seed), count);
  if (generator === "torch-cuda") return torchCudaNoise(BigInt(seed), count);
  return undefined;
}

/** sample = the initial noise: what `hostNoise` gave, else the device's own of the seed. */
export async function fillNoise(
  device: Device,
  sample: Tensor,
  { seed, size }: Pick<NoiseTask, "seed" | "size">,
  noise: Float32Array | undefined,
): Promise<void> {
  if (noise) await device.upload(sample, new Uint8Array(noise.buffer, noise.byteOffset, noise.byteLength));
  else
    fillRandom(device, { out: sample, seed, name: "noise", fullColumns: size.width, init: { kind: "normal", std: 1 } });
}

async function readNoise(
  { file: path, tensor }: NonNullable<NoiseTask["noise"]>,
  expected: readonly number[],
): Promise<Float32Array> {
  const file = await openSafetensors(path);
  try {
    const { dtype, shape } = file.info(tensor);
    if (shape.length !== 4 || shape.some((length, axis) => length !== expected[axis])) {
      throw new DitrunError(
        "ERR_TENSOR_SHAPE",
        `${path}: tensor ${tensor} has the shape [${shape.join(", ")}], but noise for this video has [${expected.join(", ")}].`,
      );
    }
    const values = toFloat32(dtype, await file.read(tensor));
    requireFiniteInput(path, tensor, values);
    return values;
  } finally {
    await file.close();
  }
}
