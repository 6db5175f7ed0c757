import type { FileHandle } from "node:fs/promises";
import { DitrunError } from "../failure.js";
import { blockOf, type FileDtype } from "./dtypes.js";
import { GgufReader } from "./gguf-reader.js";
import { checkTensorName, shown } from "./shown.js";
import {
  describe,
  elementsOf,
  openForReading,
  type StoredTensor,
  StoredTensors,
  type TensorFile,
  tensorBytes,
} from "./tensor-file.js";

/** ggml's types by number (enum ggml_type in ggml.h). What has no FileDtype is named, to be refused by it. */
const types: readonly (readonly [number: number, name: string, dtype?: FileDtype])[] = [
  ...(
    [
      [0, "F32"],
      [1, "F16"],
      [2, "Q4_0"],
      [3, "Q4_1"],
      [6, "Q5_0"],
      [7, "Q5_1"],
      [8, "Q8_0"],
      [10, "Q2_K"],
      [11, "Q3_K"],
      [12, "Q4_K"],
      [13, "Q5_K"],
      [14, "Q6_K"],
      [20, "IQ4_NL"],
      [23, "IQ4_XS"],
      [24, "I8"],
      [25, "I16"],
      [26, "I32"],
      [27, "I64"],
      [28, "F64"],
      [30, "BF16"],
    ] as const
  ).map(([number, dtype]) => [number, dtype, dtype] as const),
  ...[[9, "Q8_1"] as const, [15, "Q8_K"] as const, [16, "IQ2_XXS"] as const, [17, "IQ2_XS"] as const],
  ...[[18, "IQ3_XXS"] as const, [19, "IQ1_S"] as const, [21, "IQ3_S"] as const, [22, "IQ2_S"] as const],
  ...[[29, "IQ1_M"] as const, [34, "TQ1_0"] as const, [35, "TQ2_0"] as const, [39, "MXFP4"] as const],
];

/** Ten times those of the largest published models. */
const maxTensors = 100_000;
/** ggml's own limit is 4; a video's patch embedding has 5, [out, channels, frames, rows, columns]. */
const maxDimensions = 5;
const maxNameBytes = 250;
const defaultAlignment = 32;
const maxAlignment = 2 ** 20;
const originalShape = "comfy.gguf.orig_shape.";

/**
 * Opens a GGUF file of version 2 or 3. Dimensions are stored fastest first, and given as everywhere here, slowest first;
 * `comfy.gguf.orig_shape.NAME` gives a tensor the shape that it was stored without.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 * @throws DitrunError for a damaged file, another version, and types of numbers that are not read.
 */
export async function openGguf(path: string): Promise<TensorFile> {
  const { handle, size } = await openForReading(path);
  try {
    const { reader, tensorCount, values } = readStart(path, handle, size);
    const metadata = new Map<string, string | number>();
    const shapes = new Map<string, readonly number[]>();
    for (const [key, value] of values) {
      if (typeof value === "string" || typeof value === "number") metadata.set(key, value);
      else if (key.startsWith(originalShape) && value.every((each) => typeof each === "number"))
        shapes.set(key.slice(originalShape.length), value);
    }
    const entries = Array.from({ length: tensorCount }, () => readEntry(path, reader));
    const alignment = Number(metadata.get("general.alignment") ?? defaultAlignment);
    if (!(Number.isInteger(alignment) && alignment >= 1 && alignment <= maxAlignment))
      throw new DitrunError("ERR_GGUF", `${path} aligns its tensors to ${alignment} bytes; download it again.`);
    const dataStart = Math.ceil(reader.position / alignment) * alignment;
    const tensors = new Map<string, StoredTensor>();
    for (const entry of entries) {
      if (tensors.has(entry.name)) throw new DitrunError("ERR_GGUF", `${path} has two tensors named ${entry.name}.`);
      tensors.set(entry.name, locate(path, entry, shapes.get(entry.name), dataStart, size));
    }
    checkApart(path, tensors);
    return new StoredTensors(path, { format: "GGUF", metadata }, handle, tensors);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/**
 * Values of a GGUF file's metadata by name, lists among them: a tokenizer's pieces, for instance.
 * @throws DitrunError as openGguf.
 */
export async function readGgufValues(
  path: string,
  wanted: readonly string[],
): Promise<Map<string, string | number | readonly (string | number)[]>> {
  const { handle, size } = await openForReading(path);
  try {
    return readStart(path, handle, size, (key) => wanted.includes(key)).values;
  } finally {
    await handle.close();
  }
}

function readStart(path: string, handle: FileHandle, size: number, whole: (key: string) => boolean = () => false) {
  const reader = new GgufReader(path, handle.fd, size);
  if (reader.text(4) !== "GGUF")
    throw new DitrunError("ERR_GGUF", `${path} is not a GGUF file: it does not begin with GGUF.`);
  const version = reader.uint32();
  if (version !== 2 && version !== 3)
    throw new DitrunError(
      "ERR_GGUF",
      `${path} is GGUF of version ${version}, or of a big-endian machine; versions 2 and 3 are read: convert it anew.`,
    );
  const tensorCount = reader.count("tensors", maxTensors);
  return { reader, tensorCount, values: reader.metadata((key) => whole(key) || key.startsWith(originalShape)) };
}

interface Entry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: number;
  /** From the beginning of the data. */
  readonly offset: number;
}

function readEntry(path: string, reader: GgufReader): Entry {
  const name = reader.string("the name of a tensor", maxNameBytes);
  checkTensorName(path, name);
  const dimensions = reader.uint32();
  if (dimensions > maxDimensions)
    throw new DitrunError(
      "ERR_GGUF",
      `${path}: tensor ${name} has ${dimensions} dimensions; at most ${maxDimensions} are read.`,
    );
  const sizes = Array.from({ length: dimensions }, () => reader.uint64());
  return { name, shape: sizes.reverse(), type: reader.uint32(), offset: reader.uint64() };
}

function locate(
  path: string,
  { name, shape: stored, type, offset }: Entry,
  shape: readonly number[] = stored,
  dataStart: number,
  size: number,
): StoredTensor {
  const [, typeName, dtype] = types.find(([number]) => number === type) ?? [];
  if (dtype === undefined)
    throw new DitrunError(
      "ERR_GGUF",
      `${path}: tensor ${name} has ggml's type ${typeName ?? type}, which ditrun does not read: take a file in Q8_0 or Q4_K_M, for instance.`,
    );
  const { blockElements } = blockOf(dtype);
  if ((stored.at(-1) ?? 1) % blockElements !== 0)
    throw new DitrunError(
      "ERR_GGUF",
      `${path}: tensor ${name} is ${describe({ dtype, shape: stored })}, but its rows are no multiple of a block of ${blockElements}.`,
    );
  if (elementsOf(shape) !== elementsOf(stored) || shape.some((each) => !(Number.isInteger(each) && each >= 0)))
    throw new DitrunError(
      "ERR_GGUF",
      `${path}: tensor ${name} is ${describe({ dtype, shape: stored })}, but ${originalShape}${shown(name)} is [${shape.join(", ")}].`,
    );
  const byteLength = tensorBytes(dtype, shape);
  const begin = dataStart + offset;
  if (!(begin + byteLength <= size))
    throw new DitrunError(
      "ERR_GGUF",
      `${path} is truncated: tensor ${name} ends at byte ${begin + byteLength}, but the file has ${size}; download it again.`,
    );
  return { dtype, shape, byteLength, offset: begin };
}

function checkApart(path: string, tensors: ReadonlyMap<string, StoredTensor>): void {
  let end = 0;
  let before = "";
  for (const [name, { offset, byteLength }] of [...tensors].sort(([, a], [, b]) => a.offset - b.offset)) {
    if (offset < end) throw new DitrunError("ERR_GGUF", `${path}: tensors ${before} and ${name} overlap.`);
    end = offset + byteLength;
    before = name;
  }
}
