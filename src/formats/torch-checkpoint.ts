import type { FileHandle } from "node:fs/promises";
import * as yauzl from "yauzl";
import { DitrunError, messageOf } from "../failure.js";
import { shown } from "./shown.js";
import { openForReading, type StoredTensor, StoredTensors, type TensorFile, tensorBytes } from "./tensor-file.js";
import { type CheckpointTensor, readStateDict } from "./torch-pickle.js";

/** The pickle only names tensors: the published 14-billion-parameter checkpoints have well under a megabyte. */
const maxPickleBytes = 8 * 1024 * 1024;

/** Some fifty times those of the published checkpoints: one for each tensor. */
const maxEntries = 50_000;

/** One uncompressed entry of the archive: where its bytes stand in the file. */
interface ZipEntry {
  readonly offset: number;
  readonly byteLength: number;
}

/**
 * Opens a PyTorch checkpoint (`torch.save` since 1.6: a zip archive with data.pkl and one uncompressed entry per storage).
 * Only the archive's directory and data.pkl are read here; tensors are read later straight from their byte offsets.
 * The pickle is restricted to tensors and containers: any other class or function is refused by name, and no code runs.
 * Nested dictionaries become dotted names. Throws DitrunError with file, tensor, expected and found values.
 * Format: https://docs.pytorch.org/docs/stable/notes/serialization.html
 */
export async function openTorchCheckpoint(path: string): Promise<TensorFile> {
  const { handle, size } = await openForReading(path);
  try {
    const archive = await openArchive(path, handle, size);
    const tensors = readStateDict(path, await archive.bytes("data.pkl"));
    if (archive.has("byteorder") && (await archive.bytes("byteorder")).toString("latin1") !== "little")
      throw new DitrunError(
        "ERR_TORCH_CHECKPOINT",
        `${path} was saved on a big-endian machine; save it again on a little-endian one.`,
      );
    const stored = new Map<string, StoredTensor>();
    for (const [name, tensor] of tensors) stored.set(name, await locate(path, archive, name, tensor));
    return new StoredTensors(path, handle, stored);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function locate(path: string, archive: Archive, name: string, tensor: CheckpointTensor): Promise<StoredTensor> {
  const { dtype, shape, firstElement, storage } = tensor;
  const entry = await archive.entry(`data/${storage}`);
  const byteLength = tensorBytes(dtype, shape);
  const begin = firstElement * tensorBytes(dtype, []);
  if (begin + byteLength > entry.byteLength)
    throw new DitrunError(
      "ERR_TORCH_CHECKPOINT",
      `${path}: tensor ${name}, ${dtype} [${shape.join(", ")}], needs bytes ${begin} to ${begin + byteLength} of storage ${storage}, which has ${entry.byteLength}.`,
    );
  return { dtype, shape, byteLength, offset: entry.offset + begin };
}

interface Archive {
  has(name: string): boolean;
  entry(name: string): Promise<ZipEntry>;
  bytes(name: string): Promise<Buffer>;
}

/** What torch.save wrote first before it wrote zip archives: protocol 2, and its magic number as a LONG1 of ten bytes. */
const legacyStart = Buffer.from("80028a0a6cfc9c46f9206aa85019", "hex");

async function isLegacy(handle: FileHandle): Promise<boolean> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(legacyStart.length), 0, legacyStart.length, 0);
  return bytesRead === legacyStart.length && buffer.equals(legacyStart);
}

/** The archive's entries by their names below its one top folder. */
async function openArchive(path: string, handle: FileHandle, size: number): Promise<Archive> {
  const zip = await yauzl.fromFdPromise(handle.fd, { autoClose: false, lazyEntries: true }).catch(async (error) => {
    if (await isLegacy(handle))
      throw new DitrunError(
        "ERR_TORCH_CHECKPOINT",
        `${path} was saved by a PyTorch before 1.6, in a format that ditrun does not read; load it in PyTorch and torch.save it anew.`,
      );
    throw new DitrunError(
      "ERR_TORCH_CHECKPOINT",
      `${path} is not a PyTorch checkpoint in the zip format, or it is truncated (${shown(messageOf(error))}); download it again, or load it in PyTorch and torch.save it anew.`,
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

  const found = new Map<string, ZipEntry>();
  const locateEntry = async (name: string): Promise<ZipEntry> => {
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
      return Buffer.from(await new StoredTensors(path, handle, new Map([[name, whole]])).read(name));
    },
  };
}
