// GGUF files by hand: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

export interface GgufTensor {
  /** ggml's number of the type. */
  readonly type: number;
  /** Slowest dimension first, as everywhere here; the file has them the other way round. */
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

export const ggmlTypes = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 8, Q4_K: 12, Q6_K: 14, IQ2_XXS: 16, BF16: 30 } as const;

/** Texts, whole numbers (uint32), and lists of texts, of floats or of whole numbers (int32). */
export type GgufMetadata = Readonly<
  Record<
    string,
    string | number | { readonly floats: readonly number[] } | { readonly ints: readonly number[] } | readonly string[]
  >
>;

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: number) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
const list = (type: number, items: readonly Buffer[]) => [u32(9), u32(type), u64(items.length), ...items];

function bytesOfValue(value: GgufMetadata[string]): Buffer[] {
  if (typeof value === "string") return [u32(8), text(value)];
  if (typeof value === "number") return [u32(4), u32(value)];
  if ("floats" in value)
    return list(
      6,
      value.floats.map((each) => Buffer.from(Float32Array.of(each).buffer)),
    );
  if ("ints" in value)
    return list(
      5,
      value.ints.map((each) => Buffer.from(Int32Array.of(each).buffer)),
    );
  return list(8, value.map(text));
}

export function gguf(
  tensors: Readonly<Record<string, GgufTensor>>,
  metadata: GgufMetadata = { "general.architecture": "wan" },
  version = 3,
): Buffer {
  const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((32 - (bytes.length % 32)) % 32)]);
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  let offset = 0;
  for (const [name, { type, shape, data: own }] of Object.entries(tensors)) {
    infos.push(text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(type), u64(offset));
    const bytes = padded(Buffer.from(own));
    data.push(bytes);
    offset += bytes.length;
  }
  const values = Object.entries(metadata).flatMap(([key, value]) => [text(key), ...bytesOfValue(value)]);
  const counts = [u64(Object.keys(tensors).length), u64(Object.keys(metadata).length)];
  const head = Buffer.concat([Buffer.from("GGUF"), u32(version), ...counts, ...values, ...infos]);
  return Buffer.concat([padded(head), ...data]);
}
