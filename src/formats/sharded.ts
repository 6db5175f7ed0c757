import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { DitrunError } from "../failure.js";
import { readJsonFile } from "./json-file.js";
import { checkTensorName, isPlain, shown } from "./shown.js";
import type { About, Place, Slice, TensorFile, TensorInfo } from "./tensor-file.js";

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

  /** The metadata of all, since each may have its own. */
  get about(): About {
    const metadata = new Map(this.shards.flatMap(({ about }) => [...about.metadata]));
    return { format: this.shards[0]?.about.format ?? "safetensors", metadata };
  }

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
 * Opens every file that an index (`*.safetensors.index.json`, `*.bin.index.json`) names with `openOne`, behind one interface.
 * Throws DitrunError if the index is malformed, a shard is missing, or a shard lacks a tensor that the index puts there.
 */
export async function openShards(path: string, openOne: (path: string) => Promise<TensorFile>): Promise<TensorFile> {
  const placed = await readShardIndex(path);
  return together(path, [...new Set(placed.values())], openOne, (files) => {
    const shardOf = new Map<string, TensorFile>();
    for (const [name, file] of placed) {
      const shard = files.get(file);
      if (!shard?.has(name))
        throw new DitrunError(
          "ERR_SHARD_INDEX",
          `${path} puts tensor ${name} into ${file}, but that file does not have it; download it again.`,
        );
      shardOf.set(name, shard);
    }
    return shardOf;
  });
}

const shardName = /^(.*-)(\d{1,6})(-of-)(\d{1,6})(\.\w+)$/;
/** Far more than any model has. */
const maxShards = 1000;

/** Whether a file's name says that it is one of several: `model-00001-of-00003.safetensors`. */
export function isShard(path: string): boolean {
  return shardName.test(basename(path));
}

/**
 * Opens all shards of which one is named, without an index. Throws DitrunError if one of them is missing, or two of them have a tensor
 * of the same name.
 */
export async function openAllShards(path: string, openOne: (path: string) => Promise<TensorFile>): Promise<TensorFile> {
  const [, stem = "", digits = "", of = "", count = "", ending = ""] = shardName.exec(basename(path)) ?? [];
  if (Number(count) > maxShards)
    throw new DitrunError("ERR_SHARD_INDEX", `${path} should be one of ${count} files; at most ${maxShards} are read.`);
  const number = (index: number) => String(index + 1).padStart(digits.length, "0");
  const names = Array.from({ length: Number(count) }, (_, index) => `${stem}${number(index)}${of}${count}${ending}`);
  return together(path, names, openOne, (files) => {
    const shardOf = new Map<string, TensorFile>();
    for (const [file, shard] of files)
      for (const name of shard.names()) {
        if (shardOf.has(name))
          throw new DitrunError("ERR_SHARD_INDEX", `${path}: tensor ${name} stands in ${file} and in another shard.`);
        shardOf.set(name, shard);
      }
    return shardOf;
  });
}

/** Opens files beside `path`, and closes them again if that fails. */
async function together(
  path: string,
  names: readonly string[],
  openOne: (path: string) => Promise<TensorFile>,
  indexOf: (files: ReadonlyMap<string, TensorFile>) => Map<string, TensorFile>,
): Promise<TensorFile> {
  const files = new Map<string, TensorFile>();
  try {
    for (const name of names) {
      const file = join(dirname(path), name);
      if (!(await isThere(file)))
        throw new DitrunError(
          "ERR_CHECKPOINT_INCOMPLETE",
          `${name} is missing, one of the ${names.length} files of ${path}: download it, or all of them again.`,
        );
      files.set(name, await openOne(file));
    }
    return new Shards(path, indexOf(files), [...files.values()]);
  } catch (error) {
    await Promise.all([...files.values()].map((file) => file.close()));
    throw error;
  }
}

/** False only if nothing is there: what cannot be looked at is reported when it is opened. */
async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error: unknown) => !(error instanceof Error && "code" in error && error.code === "ENOENT"),
  );
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
