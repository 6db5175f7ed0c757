import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { DitrunError } from "../failure.js";
import { readJsonFile } from "./json-file.js";
import { checkTensorName, isPlain, shown } from "./shown.js";
import type { Place, Slice, TensorFile, TensorInfo } from "./tensor-file.js";

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/** Twice those of the largest published models. */
const maxTensors = 200_000;

/** The files that an index names, as one: each tensor is looked up in the index and read from its shard. */
class Shards implements TensorFile {
  constructor(
    readonly path: string,
    private readonly shardOf: ReadonlyMap<string, TensorFile>,
    private readonly shards: readonly TensorFile[],
  ) {}

  names(): string[] {
    return [...this.shardOf.keys()];
  }

  has(name: string): boolean {
    return this.shardOf.has(name);
  }

  info(name: string): TensorInfo {
    return this.#shard(name).info(name);
  }

  place(name: string): Place {
    return this.#shard(name).place(name);
  }

  async read(name: string, slice?: Slice, into?: Uint8Array): Promise<Uint8Array> {
    return this.#shard(name).read(name, slice, into);
  }

  async close(): Promise<void> {
    await Promise.all(this.shards.map((shard) => shard.close()));
  }

  #shard(name: string): TensorFile {
    const shard = this.shardOf.get(name);
    if (shard === undefined)
      throw new DitrunError(
        "ERR_TENSOR_MISSING",
        `${this.path} lists no tensor ${name} among its ${this.shardOf.size}.`,
      );
    return shard;
  }
}

/**
 * Opens every file that a `*.safetensors.index.json` names with `openOne`, behind one interface.
 * Throws DitrunError if the index is malformed, a shard is missing, or a shard lacks a tensor that the index puts there.
 */
export async function openShards(path: string, openOne: (path: string) => Promise<TensorFile>): Promise<TensorFile> {
  const files = new Map<string, TensorFile>();
  try {
    const shardOf = new Map<string, TensorFile>();
    for (const [name, file] of await readShardIndex(path)) {
      const shard = files.get(file) ?? (await openOne(join(dirname(path), file)));
      files.set(file, shard);
      if (!shard.has(name))
        throw new DitrunError(
          "ERR_SHARD_INDEX",
          `${path} puts tensor ${name} into ${file}, but that file does not have it; download it again.`,
        );
      shardOf.set(name, shard);
    }
    return new Shards(path, shardOf, [...files.values()]);
  } catch (error) {
    await Promise.all([...files.values()].map((file) => file.close()));
    throw error;
  }
}

/**
 * The name of the file beside an index in which each tensor stands.
 * @throws DitrunError when the index cannot be read, is malformed, or names a tensor or a file as none can be named.
 */
export async function readShardIndex(path: string): Promise<Map<string, string>> {
  const index = indexSchema.safeParse(await readJsonFile(path));
  if (!index.success)
    throw new DitrunError(
      "ERR_SHARD_INDEX",
      `${path} is not an index of safetensors files: it has no weight_map from tensor names to file names.`,
    );
  const weightMap = new Map(Object.entries(index.data.weight_map));
  if (weightMap.size > maxTensors)
    throw new DitrunError(
      "ERR_SHARD_INDEX",
      `${path} lists ${weightMap.size} tensors; at most ${maxTensors} are read.`,
    );
  for (const [name, file] of weightMap) {
    checkTensorName(path, name);
    if (basename(file) !== file || file.length < 3 || !isPlain(file))
      throw new DitrunError(
        "ERR_SHARD_INDEX",
        `${path} puts tensor ${name} into ${shown(file)}, which is not a file name beside the index.`,
      );
  }
  return weightMap;
}
