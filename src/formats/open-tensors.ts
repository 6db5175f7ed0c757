import { DitrunError } from "../failure.js";
import { openGguf } from "./gguf.js";
import { openSafetensorsFile } from "./safetensors.js";
import { isShard, openAllShards, openShards } from "./sharded.js";
import { openForReading, type TensorFile } from "./tensor-file.js";
import { openTorchCheckpoint } from "./torch-checkpoint.js";

/**
 * Opens a file of tensors of any kind that is read: safetensors, PyTorch's, GGUF; or several of them by their index, or by one of them.
 * The kind is told by a file's first bytes, since names are what people make them. Throws DitrunError as their readers do.
 */
export async function openTensors(path: string): Promise<TensorFile> {
  if (path.endsWith(".index.json")) return openShards(path, openOne);
  return isShard(path) ? openAllShards(path, openOne) : openOne(path);
}

async function openOne(path: string): Promise<TensorFile> {
  const { handle } = await openForReading(path);
  const { buffer: start } = await handle.read(Buffer.alloc(16), 0, 16, 0).finally(() => handle.close());
  if (start.toString("latin1", 0, 4) === "GGUF") return openGguf(path);
  // A zip archive, or a pickle of protocol 2.
  if (start.toString("latin1", 0, 2) === "PK" || start.readUInt16BE() === 0x8002) return openTorchCheckpoint(path);
  // A safetensors header follows the eight bytes of its length.
  if (start[8] === 0x7b) return openSafetensorsFile(path);
  if (/\.(?:pth?|ckpt|bin)$/.test(path)) return openTorchCheckpoint(path);
  if (/\.gguf$/i.test(path)) return openGguf(path);
  if (path.endsWith(".safetensors")) return openSafetensorsFile(path);
  throw new DitrunError(
    "ERR_NOT_WEIGHTS",
    `${path} is no file of weights that ditrun reads: give a .safetensors, .pth or .gguf file.`,
  );
}
