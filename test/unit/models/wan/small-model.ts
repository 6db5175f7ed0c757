import { float32ToBf16, float32ToFloat16 } from "../../../../src/formats/numbers.js";
import { decode } from "./decode.js";

/** A tensor to write, in any container. */
export interface Written {
  readonly dtype: "F64" | "F32" | "F16" | "BF16" | "F8_E4M3" | "F8_E5M2" | "I8" | "U8";
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

export type Tensors = Record<string, Written>;
/** What must be found: float32 by the names of the published code. */
export type Values = Record<string, Float32Array>;

/** Numbers for a name, the same ones each time: 0 to 2^32 - 1. */
function* draws(name: string): Generator<number> {
  let state = [...name].reduce((hash, letter) => Math.imul(hash ^ letter.charCodeAt(0), 16777619), 2166136261);
  for (;;) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    yield state >>> 0;
  }
}

export const countOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1);

/** Multiples of 1/64 below 2: exact in every dtype of 16 bits. */
export function floats(name: string, shape: readonly number[]): Float32Array {
  const numbers = draws(name);
  return Float32Array.from({ length: countOf(shape) }, () => ((Number(numbers.next().value) >>> 24) - 128) / 64);
}

/** Any codes, but NaN of the kinds of fp8. */
function codes(name: string, shape: readonly number[]): Uint8Array {
  const numbers = draws(name);
  return Uint8Array.from({ length: countOf(shape) }, () => ((Number(numbers.next().value) >>> 24) & 0xbf) >>> 0);
}

const bytesOf = (view: ArrayBufferView) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Values as a dtype stores them. */
export function store(dtype: "F64" | "F32" | "F16" | "BF16", shape: readonly number[], values: Float32Array): Written {
  const stored = {
    F64: () => Float64Array.from(values),
    F32: () => values,
    F16: () => float32ToFloat16(values),
    BF16: () => float32ToBf16(values),
  }[dtype]();
  return { dtype, shape, data: bytesOf(stored) };
}

const [width, ffn, text, time] = [32, 64, 32, 16];
const linear = (path: string, out: number, inputs: number): [string, number[]][] => [
  [`${path}.weight`, [out, inputs]],
  [`${path}.bias`, [out]],
];

/** Shapes of a transformer of two blocks. */
export function transformerShapes(inputs = 16, outputs = 16): Map<string, readonly number[]> {
  const attention = (path: string): [string, number[]][] => [
    ...["q", "k", "v", "o"].flatMap((part) => linear(`${path}.${part}`, width, width)),
    ...["q", "k"].map((part): [string, number[]] => [`${path}.norm_${part}.weight`, [width]]),
  ];
  const block = (path: string): [string, number[]][] => [
    ...[...attention(`${path}.self_attn`), ...attention(`${path}.cross_attn`)],
    ...[...linear(`${path}.ffn.0`, ffn, width), ...linear(`${path}.ffn.2`, width, ffn)],
    [`${path}.modulation`, [1, 6, width]],
    [`${path}.norm3.weight`, [width]],
    [`${path}.norm3.bias`, [width]],
  ];
  return new Map([
    ["patch_embedding.weight", [width, inputs, 1, 2, 2]],
    ["patch_embedding.bias", [width]],
    ...[...linear("text_embedding.0", width, text), ...linear("text_embedding.2", width, width)],
    ...[...linear("time_embedding.0", width, time), ...linear("time_embedding.2", width, width)],
    ...[...linear("time_projection.1", 6 * width, width), ...linear("head.head", 4 * outputs, width)],
    ["head.modulation", [1, 2, width]],
    ...[...block("blocks.0"), ...block("blocks.1")],
  ]);
}

/** Shapes of a text encoder of two layers. */
export function textEncoderShapes(): Map<string, readonly number[]> {
  const layers = [0, 1].flatMap((layer): [string, number[]][] => {
    const path = `blocks.${layer}`;
    return [
      ...["q", "k", "v", "o"].map((part): [string, number[]] => [`${path}.attn.${part}.weight`, [width, width]]),
      ...["gate.0", "fc1"].map((part): [string, number[]] => [`${path}.ffn.${part}.weight`, [ffn, width]]),
      [`${path}.ffn.fc2.weight`, [width, ffn]],
      [`${path}.norm1.weight`, [width]],
      [`${path}.norm2.weight`, [width]],
      [`${path}.pos_embedding.embedding.weight`, [32, 4]],
    ];
  });
  return new Map([["token_embedding.weight", [40, width]], ["norm.weight", [width]], ...layers]);
}

/** The matrices of the blocks: what most dialects quantise. */
export const isLinear = (name: string) =>
  /^blocks\.\d+\.(?:self_attn|cross_attn|ffn|attn)\..*weight$/.test(name) && !/norm/.test(name);

export interface Quantised {
  readonly dtype: "F8_E4M3" | "F8_E5M2" | "I8";
  /** How scales are named, and which shape they have. */
  readonly suffix?: "scale_weight" | "weight_scale";
  readonly scaleShape?: (rows: number) => readonly number[];
  readonly scaleDtype?: "F32" | "BF16";
  /** What else stands beside each weight. */
  readonly beside?: (module: string) => Tensors;
  readonly rest?: "F16" | "BF16";
}

/** A model with its matrices quantised: what is written, and what must be found. */
export function quantised(
  shapes: ReadonlyMap<string, readonly number[]>,
  how: Quantised,
): { tensors: Tensors; values: Values } {
  const { dtype, suffix, scaleShape = () => [], scaleDtype = "F32", beside = () => ({}), rest = "F16" } = how;
  const tensors: Tensors = {};
  const values: Values = {};
  for (const [name, shape] of shapes) {
    if (!isLinear(name)) {
      values[name] = floats(name, shape);
      tensors[name] = store(rest, shape, values[name]);
      continue;
    }
    const module = name.slice(0, -".weight".length);
    const data = codes(name, shape);
    const [rows = 1] = shape;
    const own = scaleShape(rows);
    // Powers of two and other numbers, all exact in bf16.
    const scale = floats(`${name} scale`, own).map((value) => (Math.abs(value) + 1 / 64) / 8);
    tensors[name] = { dtype, shape, data };
    if (suffix) tensors[`${module}.${suffix}`] = store(scaleDtype, own, scale);
    Object.assign(tensors, beside(module));
    const scales = suffix && {
      scale: { rows: scale.length === 1 ? ("one" as const) : ("each" as const), values: scale },
    };
    values[name] = decode({ dtype, shape, byteLength: data.length, ...scales }, data);
  }
  return { tensors, values };
}

/** A model as it is, in one dtype. */
export function plain(shapes: ReadonlyMap<string, readonly number[]>, dtype: "F64" | "F32" | "F16" | "BF16") {
  const values: Values = Object.fromEntries([...shapes].map(([name, shape]) => [name, floats(name, shape)]));
  const tensors: Tensors = Object.fromEntries(
    [...shapes].map(([name, shape]) => [name, store(dtype, shape, values[name] ?? new Float32Array())]),
  );
  return { tensors, values };
}

export function renamed(tensors: Tensors, naming: (name: string) => string): Tensors {
  return Object.fromEntries(Object.entries(tensors).map(([name, each]) => [naming(name), each]));
}
