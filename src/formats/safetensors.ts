import { type FileHandle, rm } from "node:fs/promises";
import { z } from "zod";
import { DitrunError, messageOf } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { takeName } from "../files/free-name.js";
import { checkOutputFile } from "../files/output-file.js";
import { openTemporary } from "../files/temporary.js";
import { writeAll } from "../files/write-all.js";
import { elementBytes, isPlainDtype } from "./dtypes.js";
import { layOut } from "./safetensors-layout.js";
import { openShards } from "./sharded.js";
import { checkTensorName, shown } from "./shown.js";
import {
  describe,
  type FileDtype,
  openForReading,
  type StoredTensor,
  StoredTensors,
  type TensorFile,
  tensorBytes,
} from "./tensor-file.js";

/** The format's own limit on the header, which also keeps a random file from asking for gigabytes. */
const maxHeaderBytes = 100_000_000;

const offset = z.int().min(0);
const entrySchema = z.object({
  dtype: z.string(),
  /** PyTorch's own limit on dimensions. */
  shape: z.array(z.int().min(0)).max(64),
  data_offsets: z.tuple([offset, offset]),
});
const metadataSchema = z.record(z.string(), z.string());
const headerSchema = z.looseObject({});

/** A tensor to write: row-major little-endian data of exactly dtype × shape. */
export interface TensorData {
  readonly dtype: FileDtype;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView;
}

/**
 * Opens a safetensors file, or a `*.safetensors.index.json` that stands for several.
 * The whole header is checked: length, JSON, names, dtypes, sizes, and that every byte of the data belongs to one tensor.
 * Throws DitrunError with file, tensor, expected and found values.
 * Format: https://huggingface.co/docs/safetensors
 */
export async function openSafetensors(path: string): Promise<TensorFile> {
  return path.endsWith(".index.json") ? openShards(path, openSafetensorsFile) : openSafetensorsFile(path);
}

/** The same for one file. */
export async function openSafetensorsFile(path: string): Promise<TensorFile> {
  const { handle, size } = await openForReading(path);
  try {
    const { tensors, metadata } = await readHeader(path, handle, size);
    return new StoredTensors(path, { format: "safetensors", metadata }, handle, tensors);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

interface Header {
  readonly tensors: Map<string, StoredTensor>;
  readonly metadata: Map<string, string>;
}

async function readHeader(path: string, handle: FileHandle, size: number): Promise<Header> {
  if (size < 8)
    throw new DitrunError(
      "ERR_SAFETENSORS",
      `${path} is not a safetensors file: it has ${size} bytes, and the header's length alone takes 8.`,
    );
  const length = Number((await readExactly(path, handle, 0, 8)).readBigUInt64LE());
  if (length > maxHeaderBytes)
    throw new DitrunError(
      "ERR_SAFETENSORS",
      `${path} is not a safetensors file: its first 8 bytes announce a header of ${length} bytes, and at most ${maxHeaderBytes} are allowed.`,
    );
  if (8 + length > size)
    throw new DitrunError(
      "ERR_SAFETENSORS",
      `${path} is truncated: its header needs ${8 + length} bytes, but the file has ${size}.`,
    );
  const header = parseHeader(path, await readExactly(path, handle, 8, length));

  const dataStart = 8 + length;
  const tensors = new Map<string, StoredTensor>();
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    checkTensorName(path, name);
    tensors.set(name, checkEntry(path, name, value, dataStart, size));
  }
  checkCoverage(path, tensors, dataStart, size);
  // What is no text is another program's business.
  const texts = Object.entries(metadataSchema.safeParse(header.__metadata__).data ?? {});
  return { tensors, metadata: new Map(texts) };
}

/**
 * Every byte of the data belongs to exactly one tensor: no overlap, no hole, and nothing behind the last.
 * Source: Metadata::validate of the format's own reader, safetensors/src/tensor.rs.
 */
function checkCoverage(
  path: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  dataStart: number,
  fileBytes: number,
): void {
  const ordered = [...tensors].sort(([, a], [, b]) => a.offset - b.offset || a.byteLength - b.byteLength);
  let end = dataStart;
  let before: string | undefined;
  for (const [name, { offset, byteLength }] of ordered) {
    if (offset < end)
      throw new DitrunError(
        "ERR_SAFETENSORS",
        `${path}: tensors ${before} and ${name} overlap: one ends at byte ${end - dataStart} of the data, the other begins at ${offset - dataStart}.`,
      );
    if (offset > end)
      throw new DitrunError(
        "ERR_SAFETENSORS",
        `${path}: bytes ${end - dataStart} to ${offset - dataStart} of the data belong to no tensor; the file is damaged, so download it again.`,
      );
    end = offset + byteLength;
    before = name;
  }
  if (end !== fileBytes)
    throw new DitrunError(
      "ERR_SAFETENSORS",
      `${path}: the tensors end at byte ${end}, but the file has ${fileBytes}; it is damaged, so download it again.`,
    );
}

function parseHeader(path: string, bytes: Buffer): Record<string, unknown> {
  const refuse = (why: string): never => {
    throw new DitrunError(
      "ERR_SAFETENSORS",
      `${path} has a header of ${bytes.byteLength} bytes that cannot be read: ${why}.`,
    );
  };
  let text = "";
  let header: unknown;
  let entries: string[] = [];
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    entries = keysOf(text);
    header = JSON.parse(text);
  } catch (error) {
    // The parser quotes the file.
    return refuse(shown(messageOf(error)));
  }
  const object = headerSchema.safeParse(header);
  if (!object.success) return refuse("it is not a JSON object");
  // JSON.parse keeps only the last of several entries of one name.
  const twice = entries.find((key, index) => key === entries[index - 1]);
  return twice === undefined ? object.data : refuse(`it has two entries for tensor ${shown(twice)}`);
}

/** An entry's lists stand in an entry, which stands in the header. */
const maxDepth = 3;
/** Ten times the tensors of the largest published models, which are shared by many files. */
const maxEntries = 100_000;

/**
 * The keys of the object that a JSON text is, sorted; one that stands twice is there twice. Found before the text is parsed, since
 * that takes long for millions of them. @throws Error when they are too many, or nested deeper than a header is.
 */
function keysOf(json: string): string[] {
  const keys: string[] = [];
  let depth = 0;
  // A string with what may follow it, or a bracket: all that matters to where keys stand.
  for (const [token, colon] of json.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"\s*(:)?|[[\]{}]/g)) {
    if (token === "}" || token === "]") depth -= 1;
    else if (token === "{" || token === "[") {
      if (++depth > maxDepth) throw new Error(`it is nested more than ${maxDepth} deep`);
    } else if (depth === 1 && colon !== undefined) {
      if (keys.length === maxEntries) throw new Error(`it has more than ${maxEntries} entries`);
      keys.push(z.string().parse(JSON.parse(token.slice(0, token.lastIndexOf('"') + 1))));
    }
  }
  return keys.sort();
}

function checkEntry(path: string, name: string, value: unknown, dataStart: number, size: number): StoredTensor {
  const entry = entrySchema.safeParse(value);
  if (!entry.success) {
    const issue = entry.error.issues[0];
    throw new DitrunError(
      "ERR_SAFETENSORS",
      `${path}: the header's entry for tensor ${name} is malformed${issue ? ` at ${issue.path.join(".") || "its top"}: ${issue.message}` : ""}.`,
    );
  }
  const { dtype, shape, data_offsets } = entry.data;
  const [begin, end] = data_offsets;
  if (!isPlainDtype(dtype))
    throw new DitrunError(
      "ERR_TENSOR_DTYPE",
      `${path}: tensor ${name} has the dtype ${shown(dtype)}; ditrun knows ${Object.keys(elementBytes).join(", ")}.`,
    );
  const byteLength = tensorBytes(dtype, shape);
  if (end - begin !== byteLength)
    throw new DitrunError(
      "ERR_SAFETENSORS",
      `${path}: tensor ${name} is ${describe({ dtype, shape })} and should have ${byteLength} bytes, but its offsets ${begin} to ${end} hold ${end - begin}.`,
    );
  if (dataStart + end > size)
    throw new DitrunError(
      "ERR_SAFETENSORS",
      `${path} is truncated: tensor ${name} ends at byte ${dataStart + end}, but the file has ${size}; copy or download it again.`,
    );
  return { dtype, shape, byteLength, offset: dataStart + begin };
}

async function readExactly(path: string, handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(buffer, done, length - done, position + done).catch((error: unknown) => {
      throw new DitrunError("ERR_FILE_READ", `Cannot read ${path}: ${fileFailure(error)}.`);
    });
    if (bytesRead === 0)
      throw new DitrunError("ERR_SAFETENSORS", `${path} ended at byte ${position + done} while its header was read.`);
    done += bytesRead;
  }
  return buffer;
}

/**
 * Writes tensors as one safetensors file: first under a temporary name beside it, then renamed, so that no reader ever
 * sees half a file. @param overwrite false to leave what has that name alone and take the next free number.
 * @returns the file's name. @throws DitrunError if the data do not match dtype × shape, or if the file cannot be written.
 */
export async function writeSafetensors(
  path: string,
  tensors: Readonly<Record<string, TensorData>>,
  overwrite = true,
): Promise<string> {
  const { header, offsets, bytes } = layOut(path, new Map(Object.entries(tensors)));
  const entries = Object.entries(tensors);
  for (const [name, { dtype, shape, data }] of entries) {
    const expected = tensorBytes(dtype, shape);
    if (data.byteLength !== expected)
      throw new DitrunError(
        "ERR_TENSOR_SHAPE",
        `Cannot write tensor ${name} to ${path}: ${describe({ dtype, shape })} has ${expected} bytes, but its data have ${data.byteLength}.`,
      );
  }

  await checkOutputFile(path, true);
  const failure = (error: unknown) =>
    new DitrunError("ERR_FILE_WRITE", `Cannot write ${path} (${bytes} bytes): ${fileFailure(error)}.`);
  const { name, file } = await openTemporary(path).catch((error: unknown) => {
    throw failure(error);
  });
  try {
    try {
      await writeAll(file, header, 0);
      for (const [name, { data }] of entries)
        await writeAll(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offsets.get(name) ?? 0);
    } finally {
      await file.close();
    }
    return await takeName(name, path, overwrite);
  } catch (error) {
    await rm(name, { force: true });
    throw failure(error);
  }
}
