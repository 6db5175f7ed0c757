import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { DitrunError, messageOf } from "../protocol/failure.js";
import { fileFailure } from "./file-failure.js";
import type { Slice, TensorFile, TensorInfo } from "./tensor-file.js";

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

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

  async read(name: string, slice?: Slice, into?: Uint8Array): Promise<Uint8Array> {
    return this.#shard(name).read(name, slice, into);
  }

  async close(): Promise<void> {
    await Promise.all(this.shards.map((shard) => shard.close()));
  }

  #shard(name: string): TensorFile {
    const shard = this.shardOf.get(name);
    if (shard === undefined)
      throw new DitrunError(`${this.path} lists no tensor ${name} among its ${this.shardOf.size}.`);
    return shard;
  }
}

/**
 * Opens every file that a `*.safetensors.index.json` names with `openOne`, behind one interface.
 * Throws DitrunError if the index is malformed, a shard is missing, or a shard lacks a tensor that the index puts there.
 */
export async function openShards(path: string, openOne: (path: string) => Promise<TensorFile>): Promise<TensorFile> {
  const weightMap = await readIndex(path);
  const files = new Map<string, TensorFile>();
  try {
    const shardOf = new Map<string, TensorFile>();
    for (const [name, file] of Object.entries(weightMap)) {
      if (basename(file) !== file)
        throw new DitrunError(`${path} puts tensor ${name} into ${file}, which is not a file name beside the index.`);
      const shard = files.get(file) ?? (await openOne(join(dirname(path), file)));
      files.set(file, shard);
      if (!shard.has(name))
        throw new DitrunError(
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

async function readIndex(path: string): Promise<Record<string, string>> {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new DitrunError(`Cannot read ${path}: ${fileFailure(error)}.`);
  });
  try {
    return indexSchema.parse(JSON.parse(text)).weight_map;
  } catch (error) {
    const why = error instanceof z.ZodError ? "it has no weight_map from tensor names to file names" : messageOf(error);
    throw new DitrunError(`${path} is not an index of safetensors files: ${why}.`);
  }
}
