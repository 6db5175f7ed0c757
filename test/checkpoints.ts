import { openSafetensors, writeSafetensors } from "../src/formats/safetensors.js";
import type { FileDtype } from "../src/formats/tensor-file.js";

export interface Stored {
  dtype: FileDtype;
  shape: readonly number[];
  data: Uint8Array;
}

/** Writes a safetensors file's tensors to another, one of them changed. */
export async function copyChanged(from: string, to: string, tensor: string, change: (stored: Stored) => Stored) {
  const file = await openSafetensors(from);
  const tensors: Record<string, Stored> = {};
  for (const each of file.names()) {
    const { dtype, shape } = file.info(each);
    const stored = { dtype, shape, data: await file.read(each) };
    tensors[each] = each === tensor ? change(stored) : stored;
  }
  await file.close();
  if (!tensors[tensor]) throw new Error(`${from} has no tensor ${tensor}.`);
  await writeSafetensors(to, tensors);
}

/** A tensor whose last value is NaN, or what is given. */
export function spoiled({ dtype, shape, data }: Stored, value = Number.NaN): Stored {
  const bytes = data.slice();
  const view = new DataView(bytes.buffer);
  if (dtype === "F32") view.setFloat32(bytes.length - 4, value, true);
  else if (dtype === "BF16" && Number.isNaN(value)) view.setUint16(bytes.length - 2, 0x7fc0, true);
  else throw new Error(`${dtype} cannot be spoiled with ${value}.`);
  return { dtype, shape, data: bytes };
}
