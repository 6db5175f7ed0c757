import { isBlockDtype } from "../../src/formats/dtypes.js";
import { toFloat32 } from "../../src/formats/numbers.js";
import type { TensorInfo } from "../../src/formats/tensor-file.js";

// A second opinion on what stored numbers mean, written for reading: the kernels that decode them are compared with it.

/** A tensor's values in float32: stored values times the scale, each product rounded once. */
export function decode({ dtype, shape, scale }: TensorInfo, bytes: Uint8Array): Float32Array {
  const values = stored(dtype, bytes);
  if (!scale) return values;
  const columns = values.length / (shape[0] ?? 1);
  return values.map((value, i) => value * (scale.values[scale.rows === "one" ? 0 : Math.floor(i / columns)] ?? NaN));
}

function stored(dtype: TensorInfo["dtype"], bytes: Uint8Array): Float32Array {
  if (dtype === "F8_E4M3") return Float32Array.from(bytes, e4m3);
  if (dtype === "F8_E5M2") return Float32Array.from(bytes, e5m2);
  if (dtype === "I8") return Float32Array.from(new Int8Array(bytes.slice().buffer));
  if (!isBlockDtype(dtype)) return toFloat32(dtype, bytes).slice();
  const { size, elements, of } = blocks[dtype];
  const out = new Float32Array((bytes.length / size) * elements);
  for (let at = 0; at < bytes.length / size; at++) of(new Block(bytes, at * size), out.subarray(at * elements));
  return out;
}

/** Sign, 4 bits of exponent, 3 of mantissa; no infinities. */
function e4m3(code: number): number {
  const sign = code & 0x80 ? -1 : 1;
  const [exponent, mantissa] = [(code >> 3) & 15, code & 7];
  if ((code & 0x7f) === 0x7f) return NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10));
}

/** Sign, 5 bits of exponent, 2 of mantissa: the upper half of a float16. */
function e5m2(code: number): number {
  return half(code << 8);
}

function half(bits: number): number {
  const [value = NaN] = toFloat32("F16", new Uint8Array(Uint16Array.of(bits).buffer));
  return value;
}

/** The bytes of one block. */
class Block {
  constructor(
    private readonly bytes: Uint8Array,
    private readonly start: number,
  ) {}

  byte(at: number): number {
    return this.bytes[this.start + at] ?? NaN;
  }

  signed(at: number): number {
    return (this.byte(at) << 24) >> 24;
  }

  half(at: number): number {
    return half(this.byte(at) | (this.byte(at + 1) << 8));
  }

  /** Of two four-bit numbers in a byte the low one, or the high one. */
  nibble(at: number, high: boolean): number {
    return high ? this.byte(at) >> 4 : this.byte(at) & 15;
  }

  bit(at: number, index: number): number {
    return (this.byte(at) >> index) & 1;
  }
}

const nonlinear = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

type Decoder = (block: Block, out: Float32Array) => void;

/** 32 numbers: the low halves of 16 bytes, then the high ones. */
const small =
  (value: (block: Block, quantum: number) => number, quanta: number, fifth?: number): Decoder =>
  (block, out) => {
    for (let i = 0; i < 32; i++) {
      const high = fifth === undefined ? 0 : block.bit(fifth + (i >> 3), i & 7) << 4;
      out[i] = value(block, block.nibble(quanta + (i % 16), i >= 16) | high);
    }
  };

/** Scale and minimum of sub-block j of eight, six bits each, packed in twelve bytes from byte 4 on. */
function scaleAndMinimum(block: Block, j: number): readonly [number, number] {
  if (j < 4) return [block.byte(4 + j) & 63, block.byte(8 + j) & 63];
  return [
    block.nibble(8 + j, false) | ((block.byte(j) >> 6) << 4),
    block.nibble(8 + j, true) | ((block.byte(4 + j) >> 6) << 4),
  ];
}

const q4k =
  (quanta: number, fifth?: number): Decoder =>
  (block, out) => {
    const [d, least] = [block.half(0), block.half(2)];
    for (let i = 0; i < 256; i++) {
      const j = i >> 5;
      const [scale, minimum] = scaleAndMinimum(block, j);
      const low = block.nibble(quanta + 32 * (j >> 1) + (i % 32), j % 2 === 1);
      const high = fifth === undefined ? 0 : block.bit(fifth + (i % 32), j) << 4;
      out[i] = Math.fround(d * scale * (low | high)) - Math.fround(least * minimum);
    }
  };

/** Of 256 numbers in two bits: the byte, and the shift, of number i, 128 numbers in 32 bytes. */
const inPairs = (i: number): readonly [number, number] => [32 * (i >> 7) + (i % 32), 2 * ((i >> 5) & 3)];

const q2k: Decoder = (block, out) => {
  const [d, least] = [block.half(80), block.half(82)];
  for (let i = 0; i < 256; i++) {
    const [at, shift] = inPairs(i);
    const quantum = (block.byte(16 + at) >> shift) & 3;
    out[i] = Math.fround(d * block.nibble(i >> 4, false) * quantum) - Math.fround(least * block.nibble(i >> 4, true));
  }
};

const q3k: Decoder = (block, out) => {
  const d = block.half(108);
  for (let i = 0; i < 256; i++) {
    const [at, shift] = inPairs(i);
    const quantum = ((block.byte(32 + at) >> shift) & 3) | (block.bit(i % 32, i >> 5) << 2);
    const j = i >> 4;
    const scale = block.nibble(96 + (j % 8), j >= 8) | (((block.byte(104 + (j % 4)) >> (2 * (j >> 2))) & 3) << 4);
    out[i] = d * (scale - 32) * (quantum - 4);
  }
};

const q6k: Decoder = (block, out) => {
  const d = block.half(208);
  for (let i = 0; i < 256; i++) {
    const run = (i >> 5) & 3;
    const low = block.nibble(64 * (i >> 7) + 32 * (run % 2) + (i % 32), run >= 2);
    const high = (block.byte(128 + 32 * (i >> 7) + (i % 32)) >> (2 * run)) & 3;
    out[i] = d * block.signed(192 + (i >> 4)) * ((low | (high << 4)) - 32);
  }
};

const iq4xs: Decoder = (block, out) => {
  const d = block.half(0);
  for (let i = 0; i < 256; i++) {
    const j = i >> 5;
    const scale = block.nibble(4 + (j >> 1), j % 2 === 1) | (((block.byte(2 + (j >> 2)) >> (2 * (j % 4))) & 3) << 4);
    out[i] = d * (scale - 32) * (nonlinear[block.nibble(8 + 16 * j + (i % 16), i % 32 >= 16)] ?? NaN);
  }
};

/** Source: dequantize_row_* in ggml's ggml-quants.c. */
const blocks = {
  Q4_0: { size: 18, elements: 32, of: small((b, q) => b.half(0) * (q - 8), 2) },
  Q4_1: { size: 20, elements: 32, of: small((b, q) => b.half(0) * q + b.half(2), 4) },
  Q5_0: { size: 22, elements: 32, of: small((b, q) => b.half(0) * (q - 16), 6, 2) },
  Q5_1: { size: 24, elements: 32, of: small((b, q) => b.half(0) * q + b.half(2), 8, 4) },
  IQ4_NL: { size: 18, elements: 32, of: small((b, q) => b.half(0) * (nonlinear[q] ?? NaN), 2) },
  Q8_0: {
    size: 34,
    elements: 32,
    of: (block: Block, out: Float32Array) => {
      for (let i = 0; i < 32; i++) out[i] = block.half(0) * block.signed(2 + i);
    },
  },
  Q2_K: { size: 84, elements: 256, of: q2k },
  Q3_K: { size: 110, elements: 256, of: q3k },
  Q4_K: { size: 144, elements: 256, of: q4k(16) },
  Q5_K: { size: 176, elements: 256, of: q4k(48, 16) },
  Q6_K: { size: 210, elements: 256, of: q6k },
  IQ4_XS: { size: 136, elements: 256, of: iq4xs },
} as const;
