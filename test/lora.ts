import { writeFile } from "node:fs/promises";
import { float32ToBf16, float32ToFloat16 } from "../src/formats/numbers.js";
import { type TensorData, writeSafetensors } from "../src/formats/safetensors.js";
import type { WanModel } from "../src/models/schema.js";
import { parameterShapes } from "../src/models/wan/lora/modules.js";

/** Factors of one LoRA pair: up [out, rank], down [rank, in], as float64. */
export interface Pair {
  readonly up: Float64Array;
  readonly down: Float64Array;
  readonly rank: number;
}

/** Repeatable multiples of 1/64 in [-1, 1]: exact in float32, float16 and bfloat16, as are their products' sums in float32. */
export function dyadic(count: number, seed: number): Float64Array {
  let state = (seed * 2654435761 + 1) >>> 0;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.round((state / 2 ** 31 - 1) * 64) / 64;
  });
}

export function pairOf(rows: number, columns: number, rank: number, seed: number): Pair {
  return { up: dyadic(rows * rank, seed), down: dyadic(rank * columns, seed + 1), rank };
}

/** up · down, row-major. */
export function product({ up, down, rank }: Pair): Float64Array {
  const [rows, columns] = [up.length / rank, down.length / rank];
  return Float64Array.from({ length: rows * columns }, (_, at) => {
    const [row, column] = [Math.floor(at / columns), at % columns];
    let sum = 0;
    for (let r = 0; r < rank; r++) sum += (up[row * rank + r] ?? NaN) * (down[r * columns + column] ?? NaN);
    return sum;
  });
}

export type Stored = "F32" | "F16" | "BF16" | "I64";

/** A tensor of a file. */
export function stored(dtype: Stored, shape: readonly number[], values: Iterable<number>): TensorData {
  const all = Float32Array.from(values);
  const data =
    dtype === "I64"
      ? BigInt64Array.from([...all], (value) => BigInt(value))
      : dtype === "BF16"
        ? float32ToBf16(all)
        : dtype === "F16"
          ? float32ToFloat16(all)
          : all;
  return { dtype, shape, data };
}

/** Writes a safetensors file whose header has metadata. */
export async function writeWithMetadata(
  path: string,
  tensors: Readonly<Record<string, TensorData>>,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  let end = 0;
  const entries = Object.entries(tensors).map(([name, { dtype, shape, data }]) => {
    const begin = end;
    end += data.byteLength;
    return [name, { dtype, shape, data_offsets: [begin, end] }] as const;
  });
  const header = Buffer.from(JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(entries) }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.byteLength));
  const bytes = Object.values(tensors).map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  await writeFile(path, Buffer.concat([length, header, ...bytes]));
}

/** A LoRA for the linear layers of a model whose paths match, large enough to be seen. */
export async function writeRandomLora(path: string, model: WanModel, layers = /^blocks\./, rank = 3): Promise<void> {
  const tensors: Record<string, TensorData> = {};
  let seed = 1;
  for (const [name, shape] of parameterShapes(model)) {
    const [, module] = /^(.*)\.weight$/.exec(name) ?? [];
    const [rows, columns] = shape;
    if (module === undefined || shape.length !== 2 || rows === undefined || columns === undefined) continue;
    if (!layers.test(module)) continue;
    const pair = pairOf(rows, columns, rank, seed++);
    tensors[`diffusion_model.${module}.lora_A.weight`] = stored("F32", [rank, columns], pair.down);
    tensors[`diffusion_model.${module}.lora_B.weight`] = stored(
      "F32",
      [rows, rank],
      pair.up.map((x) => x / 32),
    );
  }
  await writeSafetensors(path, tensors);
}
