import { DitrunError } from "../failure.js";
import type { FileDtype } from "./tensor-file.js";

/** bfloat16 bits → float32, exact. Shapes: [n] → [n]. */
export function bf16ToFloat32(bits: Uint16Array, out = new Float32Array(bits.length)): Float32Array {
  const words = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] ?? 0) << 16;
  return out;
}

/** float32 → bfloat16 bits, rounded to nearest even; a NaN stays a (quiet) NaN. Shapes: [n] → [n]. */
export function float32ToBf16(values: Float32Array, out = new Uint16Array(values.length)): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? 0;
    const isNan = (word & 0x7fffffff) > 0x7f800000;
    out[i] = isNan ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return out;
}

let halfTable: Uint32Array | undefined;

/** float32 bits of each of the 65,536 float16 values. */
function float16Table(): Uint32Array {
  if (halfTable !== undefined) return halfTable;
  const table = new Float32Array(65536);
  const words = new Uint32Array(table.buffer);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >>> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else if (exponent < 31) table[bits] = sign * (1024 + fraction) * 2 ** (exponent - 25);
    // Infinity and NaN: by bits, so that a NaN keeps its payload.
    else words[bits] = ((bits & 0x8000) << 16) | 0x7f800000 | (fraction << 13);
  }
  halfTable = words;
  return words;
}

/** float16 bits → float32, exact. Shapes: [n] → [n]. */
export function float16ToFloat32(bits: Uint16Array, out = new Float32Array(bits.length)): Float32Array {
  const table = float16Table();
  const words = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < bits.length; i++) words[i] = table[bits[i] ?? 0] ?? 0;
  return out;
}

/** float32 → float16 bits, rounded to nearest even; above 65,504 it becomes infinity as IEEE 754 says. Shapes: [n] → [n]. */
export function float32ToFloat16(values: Float32Array, out = new Uint16Array(values.length)): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < words.length; i++) out[i] = halfBits(words[i] ?? 0);
  return out;
}

function halfBits(word: number): number {
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x1ff);
  // 65,520 is halfway between the largest float16 and the next step: it and all above round to infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  // Normal: rebias the exponent from 127 to 15, drop 13 bits; a carry out of the fraction is the right next exponent.
  if (magnitude >= 0x38800000) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  // At most half of the smallest subnormal, 2^-24.
  if (magnitude <= 0x33000000) return sign;
  // Subnormal: the fraction with its hidden bit, shifted so that the unit is 2^-24.
  const shift = 126 - (magnitude >>> 23);
  const fraction = (magnitude & 0x7fffff) | 0x800000;
  const half = 1 << (shift - 1);
  return sign | ((fraction + half - 1 + ((fraction >>> shift) & 1)) >>> shift);
}

/**
 * Raw little-endian bytes of a floating-point tensor → float32. F32, BF16 and F16 are exact, F64 is rounded.
 * F32 bytes that happen to be aligned are viewed, not copied. Throws DitrunError for other dtypes.
 */
export function toFloat32(dtype: FileDtype, bytes: Uint8Array): Float32Array {
  const width = dtype === "F64" ? 8 : dtype === "F32" ? 4 : 2;
  const { buffer, byteOffset } = bytes.byteOffset % width === 0 ? bytes : bytes.slice();
  const length = bytes.byteLength / width;
  switch (dtype) {
    case "F64":
      return Float32Array.from(new Float64Array(buffer, byteOffset, length));
    case "F32":
      return new Float32Array(buffer, byteOffset, length);
    case "F16":
      return float16ToFloat32(new Uint16Array(buffer, byteOffset, length));
    case "BF16":
      return bf16ToFloat32(new Uint16Array(buffer, byteOffset, length));
    default:
      throw new DitrunError(
        "ERR_TENSOR_DTYPE",
        `${dtype} values cannot be read as floating-point numbers; F32, BF16, F16 and F64 can.`,
      );
  }
}
