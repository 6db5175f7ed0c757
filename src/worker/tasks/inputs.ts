import { DitrunError } from "../../failure.js";
import { toFloat32 } from "../../formats/numbers.js";
import { openSafetensors } from "../../formats/safetensors.js";
import type { DitModel } from "../../models/schema.js";
import type { Seed } from "../../protocol/seed.js";
import type { DitInputs } from "../models/dit/dit.js";
import type { Device } from "../runtime/device.js";
import { withStaging } from "../runtime/staging.js";
import { fillRandom } from "../weights/source.js";
import { requireFiniteInput } from "./finite.js";

/** Inputs of a seed, the same on every rank: a normal image, a time step in [0, 1000) and a class. */
export async function randomInputs(device: Device, model: DitModel, seed: Seed): Promise<DitInputs> {
  const { channels, imageSize, classes } = model;
  const shape = [channels, imageSize, imageSize];
  return withStaging(device, "fp32", shape, async (image) => {
    fillRandom(device, {
      out: image,
      seed,
      name: "inputs.img",
      fullColumns: imageSize,
      init: { kind: "normal", std: 1 },
    });
    const mixed = (factor: bigint, term: bigint, modulus: number) =>
      Number((BigInt(seed) * factor + term) % BigInt(modulus));
    return { image: await device.download(image), t: mixed(271n, 500n, 1000), y: mixed(37n, 7n, classes) };
  });
}

/** Inputs `img` [1, channels, size, size], `t` [1] and `y` [1] of a safetensors file. @throws DitrunError when they do not fit. */
export async function readInputs(path: string, model: DitModel): Promise<DitInputs> {
  const file = await openSafetensors(path);
  try {
    const count = model.channels * model.imageSize ** 2;
    const img = file.info("img");
    if (img.shape.reduce((product, size) => product * size, 1) !== count) {
      throw new DitrunError(
        "ERR_TENSOR_SHAPE",
        `${path}: img has the shape [${img.shape.join(", ")}]; ${model.name} takes [1, ${model.channels}, ${model.imageSize}, ${model.imageSize}].`,
      );
    }
    const values = toFloat32(img.dtype, await file.read("img"));
    requireFiniteInput(path, "img", values);
    const time = toFloat32(file.info("t").dtype, await file.read("t"));
    requireFiniteInput(path, "t", time);
    return {
      image: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
      t: time[0] ?? 0,
      y: await readInteger(path, file.info("y").dtype, await file.read("y")),
    };
  } finally {
    await file.close();
  }
}

async function readInteger(path: string, dtype: string, bytes: Uint8Array): Promise<number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (dtype === "I64") return Number(view.getBigInt64(0, true));
  if (dtype === "I32") return view.getInt32(0, true);
  throw new DitrunError("ERR_TENSOR_DTYPE", `${path}: y is ${dtype}; it must be I64 or I32.`);
}
