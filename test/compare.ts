import { toFloat32 } from "../src/formats/numbers.js";
import { openSafetensors } from "../src/formats/safetensors.js";

/** A tensor of a file, as float32. */
export async function readTensor(path: string, name: string): Promise<Float32Array> {
  const file = await openSafetensors(path);
  try {
    return toFloat32(file.info(name).dtype, await file.read(name));
  } finally {
    await file.close();
  }
}

/** √(Σ (x - y)² / Σ y²); NaN where x has one, or where the lengths differ. */
export function relativeL2(x: ArrayLike<number>, y: ArrayLike<number>): number {
  if (x.length !== y.length) return Number.NaN;
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < y.length; i++) {
    difference += ((x[i] ?? Number.NaN) - (y[i] ?? Number.NaN)) ** 2;
    norm += (y[i] ?? Number.NaN) ** 2;
  }
  return Math.sqrt(difference / norm);
}

/** Peak signal-to-noise ratio of pixels in [-1, 1] (others are clamped to it), in dB: 10 log10(2² / mean squared difference). NaN counts. */
export function psnr(x: ArrayLike<number>, y: ArrayLike<number>): number {
  if (x.length !== y.length) return Number.NaN;
  const clamp = (value = Number.NaN) => Math.min(1, Math.max(-1, value));
  let squares = 0;
  for (let i = 0; i < y.length; i++) squares += (clamp(x[i]) - clamp(y[i])) ** 2;
  return 10 * Math.log10((4 * y.length) / squares);
}
