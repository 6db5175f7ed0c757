// How files store numbers, as ggml's own loops and IEEE 754 have it: one block at a time, in float64. Shared by tests of decoding.
import { storedKinds } from "../../src/worker/runtime/abi.js";

export type Kind = keyof typeof storedKinds;

interface Format {
  readonly elements: number;
  readonly bytes: number;
  /** The numbers of one block. */
  readonly decode: (block: DataView) => number[];
}

const range = (count: number) => Array.from({ length: count }, (_, i) => i);

/** A float of so many exponent and mantissa bits; `finite`: with no infinity and one NaN, as e4m3. */
function small(bits: number, exponentBits: number, mantissa: number, finite = false): number {
  const sign = bits >> (exponentBits + mantissa) ? -1 : 1;
  const exponent = (bits >> mantissa) & (2 ** exponentBits - 1);
  const fraction = bits & (2 ** mantissa - 1);
  const bias = 2 ** (exponentBits - 1) - 1;
  const last = exponent === 2 ** exponentBits - 1;
  if (finite && last && fraction === 2 ** mantissa - 1) return Number.NaN;
  if (!finite && last) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return (
    sign *
    (exponent === 0 ? fraction * 2 ** (1 - bias - mantissa) : (1 + fraction / 2 ** mantissa) * 2 ** (exponent - bias))
  );
}

const half = (view: DataView, at: number) => small(view.getUint16(at, true), 5, 10);
const plain = (bytes: number, read: (view: DataView) => number): Format => ({
  elements: 1,
  bytes,
  decode: (view) => [read(view)],
});

const levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
const nibbles = (view: DataView, at: number) => [
  ...range(16).map((j) => view.getUint8(at + j) & 15),
  ...range(16).map((j) => view.getUint8(at + j) >> 4),
];
const fifths = (view: DataView, at: number) => range(32).map((j) => (view.getUint32(at, true) >>> j) & 1);

/** 6-bit scales and minima of Q4_K and Q5_K. */
function sixBits(view: DataView, at: number) {
  const q = range(12).map((i) => view.getUint8(at + i));
  const of = (i: number) => q[i] ?? Number.NaN;
  return range(8).map((j) =>
    j < 4
      ? { scale: of(j) & 63, least: of(j + 4) & 63 }
      : { scale: (of(j + 4) & 15) | ((of(j - 4) >> 6) << 4), least: (of(j + 4) >> 4) | ((of(j) >> 6) << 4) },
  );
}

function q2k(view: DataView): number[] {
  const [d, least] = [half(view, 80), half(view, 82)];
  const out: number[] = [];
  let is = 0;
  for (const n of [0, 1]) {
    for (let shift = 0; shift < 8; shift += 2) {
      for (const part of [0, 16]) {
        const sc = view.getUint8(is++);
        for (let l = 0; l < 16; l++) {
          const q = (view.getUint8(16 + n * 32 + part + l) >> shift) & 3;
          out.push(d * (sc & 15) * q - least * (sc >> 4));
        }
      }
    }
  }
  return out;
}

function q3k(view: DataView): number[] {
  const [k1, k2] = [0x03030303, 0x0f0f0f0f];
  const [a, b, c] = [view.getUint32(96, true), view.getUint32(100, true), view.getUint32(104, true)];
  const words = [
    (a & k2) | ((c & k1) << 4),
    (b & k2) | (((c >>> 2) & k1) << 4),
    ((a >>> 4) & k2) | (((c >>> 4) & k1) << 4),
    ((b >>> 4) & k2) | (((c >>> 6) & k1) << 4),
  ];
  const scales = range(16).map((i) => ((words[i >> 2] ?? 0) >>> (8 * (i % 4))) & 255);
  const d = half(view, 108);
  const out: number[] = [];
  let [is, m] = [0, 1];
  for (const n of [0, 1]) {
    for (let shift = 0; shift < 8; shift += 2) {
      for (const part of [0, 16]) {
        const dl = d * ((scales[is++] ?? 0) - 32);
        for (let l = part; l < part + 16; l++) {
          const q = (view.getUint8(32 + n * 32 + l) >> shift) & 3;
          out.push(dl * (q - (view.getUint8(l) & m ? 0 : 4)));
        }
      }
      m <<= 1;
    }
  }
  return out;
}

function q45k(view: DataView, five: boolean): number[] {
  const [d, least, scales] = [half(view, 0), half(view, 2), sixBits(view, 4)];
  const out: number[] = [];
  for (let j = 0; j < 4; j++) {
    for (const high of [0, 1]) {
      const { scale, least: m } = scales[2 * j + high] ?? { scale: 0, least: 0 };
      for (let l = 0; l < 32; l++) {
        const byte = view.getUint8((five ? 48 : 16) + j * 32 + l);
        const fifth = five && view.getUint8(16 + l) & (1 << (2 * j + high)) ? 16 : 0;
        out.push(d * scale * ((high ? byte >> 4 : byte & 15) + fifth) - least * m);
      }
    }
  }
  return out;
}

function q6k(view: DataView): number[] {
  const d = half(view, 208);
  const out = new Array<number>(256).fill(Number.NaN);
  for (const n of [0, 1]) {
    for (let l = 0; l < 32; l++) {
      const [ql, qh, sc] = [64 * n + l, 128 + 32 * n + l, 192 + 8 * n + (l >> 4)];
      const high = view.getUint8(qh);
      const [low, low32] = [view.getUint8(ql), view.getUint8(ql + 32)];
      const q = [low & 15, low32 & 15, low >> 4, low32 >> 4].map(
        (x, part) => (x | (((high >> (2 * part)) & 3) << 4)) - 32,
      );
      q.forEach((x, part) => {
        out[128 * n + 32 * part + l] = d * view.getInt8(sc + 2 * part) * x;
      });
    }
  }
  return out;
}

function iq4xs(view: DataView): number[] {
  const [d, high] = [half(view, 0), view.getUint16(2, true)];
  return range(8).flatMap((group) => {
    const low = (view.getUint8(4 + (group >> 1)) >> (4 * (group % 2))) & 15;
    const dl = d * ((low | (((high >> (2 * group)) & 3) << 4)) - 32);
    return nibbles(view, 8 + 16 * group).map((q) => dl * (levels[q] ?? 0));
  });
}

const block = (elements: number, bytes: number, decode: Format["decode"]): Format => ({ elements, bytes, decode });

export const formats: Readonly<Record<Kind, Format>> = {
  F32: plain(4, (view) => view.getFloat32(0, true)),
  F16: plain(2, (view) => half(view, 0)),
  BF16: plain(2, (view) => small(view.getUint16(0, true), 8, 7)),
  F64: plain(8, (view) => view.getFloat64(0, true)),
  F8_E4M3: plain(1, (view) => small(view.getUint8(0), 4, 3, true)),
  F8_E5M2: plain(1, (view) => small(view.getUint8(0), 5, 2)),
  I8: plain(1, (view) => view.getInt8(0)),
  Q8_0: block(32, 34, (view) => range(32).map((j) => half(view, 0) * view.getInt8(2 + j))),
  Q4_0: block(32, 18, (view) => nibbles(view, 2).map((q) => half(view, 0) * (q - 8))),
  Q4_1: block(32, 20, (view) => nibbles(view, 4).map((q) => half(view, 0) * q + half(view, 2))),
  Q5_0: block(32, 22, (view) => {
    const high = fifths(view, 2);
    return nibbles(view, 6).map((q, j) => half(view, 0) * ((q | ((high[j] ?? 0) << 4)) - 16));
  }),
  Q5_1: block(32, 24, (view) => {
    const high = fifths(view, 4);
    return nibbles(view, 8).map((q, j) => half(view, 0) * (q | ((high[j] ?? 0) << 4)) + half(view, 2));
  }),
  IQ4_NL: block(32, 18, (view) => nibbles(view, 2).map((q) => half(view, 0) * (levels[q] ?? 0))),
  Q2_K: block(256, 84, q2k),
  Q3_K: block(256, 110, q3k),
  Q4_K: block(256, 144, (view) => q45k(view, false)),
  Q5_K: block(256, 176, (view) => q45k(view, true)),
  Q6_K: block(256, 210, q6k),
  IQ4_XS: block(256, 136, iq4xs),
};

export const kinds = Object.keys(formats).filter((name): name is Kind => name in storedKinds);

/** Bytes of a row. */
export const rowBytesOf = (kind: Kind, columns: number) => (columns / formats[kind].elements) * formats[kind].bytes;

/** What rows of so many columns hold, in float32. */
export function decoded(kind: Kind, bytes: Uint8Array): Float64Array {
  const { bytes: each, decode } = formats[kind];
  const view = (at: number) => new DataView(bytes.buffer, bytes.byteOffset + at, each);
  return Float64Array.from(range(bytes.length / each).flatMap((i) => decode(view(i * each)).map(Math.fround)));
}

/** Repeatable random bytes. */
export function randomBytes(count: number, seed: number): Uint8Array {
  let state = (seed * 2654435761 + 1) >>> 0;
  return Uint8Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}
