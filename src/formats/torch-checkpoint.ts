import type { FileHandle } from "node:fs/promises";
import * as yauzl from "yauzl";
import { DitrunError, messageOf } from "../failure.js";
import { shown } from "./shown.js";
import { openForReading, type StoredTensor, StoredTensors, type TensorFile, tensorBytes } from "./tensor-file.js";
import { type CheckpointTensor, readLegacyStart, readStateDict } from "./torch-pickle.js";

/** The pickle only names tensors: the published 14-billion-parameter checkpoints have well under a megabyte. */
const maxPickleBytes = 8 * 1024 * 1024;

/** Some fifty times those of the published checkpoints: one for each tensor. */
const maxEntries = 50_000;

/** An uncompressed entry of the archive, or a storage: where its bytes stand in the file. */
interface Extent {
  readonly offset: number;
  readonly byteLength: number;
}

/**
 * Opens a PyTorch checkpoint: what `torch.save` writes since 1.6, a zip archive with data.pkl and one uncompressed entry per storage,
 * or what it wrote before, pickles and the storages' bytes behind them.
 * Only directory and pickles are read here; tensors are read later straight from their byte offsets.
 * The pickle is restricted to tensors and containers: any other class or function is refused by name, and no code runs.
 * Nested dictionaries become dotted names. Throws DitrunError with file, tensor, expected and found values.
 * Format: https://docs.pytorch.org/docs/stable/notes/serialization.html
 */
export async function openTorchCheckpoint(path: string): Promise<TensorFile> {
  const { handle, size } = await openForReading(path);
  try {
    const read = (await isLegacy(handle)) ? readLegacy : readZip;
    return new StoredTensors(path, { format: "PyTorch", metadata: new Map() }, handle, await read(path, handle, size));
  } catch (error) {
    await handle.close();
    throw error;
  }
}

type Reading = (path: string, handle: FileHandle, size: number) => Promise<Map<string, StoredTensor>>;

const readZip: Reading = async (path, handle, size) => {
  const archive = await openArchive(path, handle, size);
  const tensors = readStateDict(path, await archive.bytes("data.pkl"));
  if (archive.has("byteorder") && (await archive.bytes("byteorder")).toString("latin1") !== "little")
    throw new DitrunError(
      "ERR_TORCH_CHECKPOINT",
      `${path} was saved on a big-endian machine; save it again on a little-endian one.`,
    );
  const stored = new Map<string, StoredTensor>();
  for (const [name, tensor] of tensors)
    stored.set(name, inStorage(path, name, tensor, await archive.entry(`data/${tensor.storage}`)));
  return stored;
};

/** The storages stand behind the pickles, each after a count of its elements. */
const readLegacy: Reading = async (path, handle, size) => {
  const start = await readUpTo(handle, Math.min(size, maxPickleBytes));
  const { tensors, storages, end } = readLegacyStart(path, start);
  const places = new Map<string, Extent>();
  let position = end;
  for (const { key, elementBytes } of storages) {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(8), 0, 8, position);
    const byteLength = bytesRead === 8 ? Number(buffer.readBigInt64LE()) * elementBytes : Number.NaN;
    if (!(byteLength >= 0 && position + 8 + byteLength <= size))
      throw new DitrunError(
        "ERR_TORCH_CHECKPOINT",
        `${path} is truncated: storage ${key} begins at byte ${position}, and the file has ${size}; download it again.`,
      );
    places.set(key, { offset: position + 8, byteLength });
    position += 8 + byteLength;
  }
  const stored = new Map<string, StoredTensor>();
  for (const [name, tensor] of tensors) {
    const place = places.get(tensor.storage);
    if (place === undefined)
      throw new DitrunError(
        "ERR_TORCH_CHECKPOINT",
        `${path} has no storage ${tensor.storage}, which tensor ${name} needs.`,
      );
    stored.set(name, inStorage(path, name, tensor, place));
  }
  return stored;
};

async function readUpTo(handle: FileHandle, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  for (let bytesRead = 1; bytesRead > 0 && done < length; done += bytesRead)
    ({ bytesRead } = await handle.read(buffer, done, length - done, done));
  return buffer.subarray(0, done);
}

function inStorage(path: string, name: string, tensor: CheckpointTensor, place: Extent): StoredTensor {
  const { dtype, shape, firstElement, storage } = tensor;
  const byteLength = tensorBytes(dtype, shape);
  const begin = firstElement * tensorBytes(dtype, []);
  if (begin + byteLength > place.byteLength)
    throw new DitrunError(
      "ERR_TORCH_CHECKPOINT",
      `${path}: tensor ${name}, ${dtype} [${shape.join(", ")}], needs bytes ${begin} to ${begin + byteLength} of storage ${storage}, which has ${place.byteLength}.`,
    );
  return { dtype, shape, byteLength, offset: place.offset + begin };
}

interface Archive {
  has(name: string): boolean;
  entry(name: string): Promise<Extent>;
  bytes(name: string): Promise<Buffer>;
}

/** What torch.save wrote first before 1.6, when it wrote zip archives: protocol 2, and its magic number as a LONG1 of ten bytes. */
const legacyStart = Buffer.from("80028a0a6cfc9c46f9206aa85019", "hex");

async function isLegacy(handle: FileHandle): Promise<boolean> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(legacyStart.length), 0, legacyStart.length, 0);
  return bytesRead === legacyStart.length && buffer.equals(legacyStart);
}

/** The archive's entries by their names below its one top folder. */
async function openArchive(path: string, handle: FileHandle, size: number): Promise<Archive> {
  const zip = await yauzl.fromFdPromise(handle.fd, { autoClose: false, lazyEntries: true }).catch((error: unknown) => {
    throw new DitrunError(
      "ERR_TORCH_CHECKPOINT",
      `${path} is not a PyTorch checkpoint, or it is truncated (${shown(messageOf(error))}); download it again, or load it in PyTorch and torch.save it anew.`,
    );
  });
  if (zip.entryCount > maxEntries)
    throw new DitrunError(
      "ERR_TORCH_CHECKPOINT",
      `${path} has ${zip.entryCount} entries; at most ${maxEntries} are read.`,
    );
  const entries = new Map<string, yauzl.Entry>();
  try {
    for await (const entry of zip.eachEntry())
      entries.set(entry.fileName.slice(entry.fileName.indexOf("/") + 1), entry);
  } catch (error) {
    throw new DitrunError(
      "ERR_TORCH_CHECKPOINT",
      `${path}: the directory of this zip archive is damaged (${shown(messageOf(error))}); download it again.`,
    );
  }

  const found = new Map<string, Extent>();
  const locateEntry = async (name: string): Promise<Extent> => {
    const known = found.get(name);
    if (known !== undefined) return known;
    const entry = entries.get(name);
    if (entry === undefined)
      throw new DitrunError(
        "ERR_TORCH_CHECKPOINT",
        `${path} is not a PyTorch checkpoint: it has no ${name} among its ${entries.size} entries.`,
      );
    if (entry.compressionMethod !== 0 || entry.isEncrypted())
      throw new DitrunError(
        "ERR_TORCH_CHECKPOINT",
        `${path}: entry ${name} is compressed or encrypted; torch.save stores entries as they are.`,
      );
    const { fileDataStart } = await zip.readLocalFileHeaderPromise(entry, { minimal: true }).catch((error: unknown) => {
      throw new DitrunError(
        "ERR_TORCH_CHECKPOINT",
        `${path}: entry ${name} of this zip archive is damaged (${shown(messageOf(error))}).`,
      );
    });
    if (fileDataStart + entry.uncompressedSize > size)
      throw new DitrunError(
        "ERR_TORCH_CHECKPOINT",
        `${path}: entry ${name} should end at byte ${fileDataStart + entry.uncompressedSize}, but the file has ${size}; download it again.`,
      );
    const located = { offset: fileDataStart, byteLength: entry.uncompressedSize };
    found.set(name, located);
    return located;
  };

  return {
    has: (name) => entries.has(name),
    entry: locateEntry,
    bytes: async (name) => {
      const { offset, byteLength } = await locateEntry(name);
      if (byteLength > maxPickleBytes)
        throw new DitrunError(
          "ERR_TORCH_CHECKPOINT",
          `${path}: its ${name} has ${byteLength} bytes; at most ${maxPickleBytes} are read.`,
        );
      const whole: StoredTensor = { dtype: "U8", shape: [byteLength], byteLength, offset };
      const about = { format: "PyTorch", metadata: new Map() } as const;
      return Buffer.from(await new StoredTensors(path, about, handle, new Map([[name, whole]])).read(name));
    },
  };
}
