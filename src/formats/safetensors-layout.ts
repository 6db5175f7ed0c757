import { DitrunError } from "../failure.js";
import { blockOf, isPlainDtype } from "./dtypes.js";
import { type FileDtype, type TensorInfo, tensorBytes } from "./tensor-file.js";

/** A safetensors file to write, before its data are there. */
export interface SafetensorsLayout {
  /** The file's first bytes: the header with its length. */
  readonly header: Buffer;
  /** Where each tensor begins, in bytes from the file's start. */
  readonly offsets: ReadonlyMap<string, number>;
  /** Of the whole file. */
  readonly bytes: number;
}

/**
 * Where tensors stand in a safetensors file: the widest elements first, so that each is aligned once the header is padded to 8 bytes.
 * The same tensors and metadata always give the same bytes. Format: https://huggingface.co/docs/safetensors
 * @param path for messages. @throws DitrunError for a dtype that the format lacks.
 */
export function layOut(
  path: string,
  tensors: ReadonlyMap<string, Pick<TensorInfo, "dtype" | "shape">>,
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsLayout {
  const width = (dtype: FileDtype) => blockOf(dtype).blockBytes;
  const ordered = [...tensors].sort(([a, x], [b, y]) => width(y.dtype) - width(x.dtype) || (a < b ? -1 : 1));
  let end = 0;
  const entries = ordered.map(([name, { dtype, shape }]) => {
    if (!isPlainDtype(dtype))
      throw new DitrunError("ERR_TENSOR_DTYPE", `Cannot write tensor ${name} to ${path}: safetensors has no ${dtype}.`);
    const begin = end;
    end += tensorBytes(dtype, shape);
    return [name, { dtype, shape, data_offsets: [begin, end] as const }] as const;
  });
  const about = Object.keys(metadata).length === 0 ? [] : [["__metadata__", metadata] as const];
  const json = JSON.stringify(Object.fromEntries<unknown>([...about, ...entries]));
  const text = Buffer.from(json + " ".repeat((8 - (Buffer.byteLength(json) % 8)) % 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.byteLength));
  const header = Buffer.concat([length, text]);
  const offsets = new Map(entries.map(([name, { data_offsets }]) => [name, header.byteLength + data_offsets[0]]));
  return { header, offsets, bytes: header.byteLength + end };
}
