import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { DitrunError } from "../../failure.js";
import { openTensors } from "../../formats/open-tensors.js";
import { isShard } from "../../formats/sharded.js";
import { isLora, partsOf } from "./tensors/open-part.js";
import type { Part } from "./tensors/spellings.js";

const weightsFile = /\.(?:safetensors|gguf|pth?|ckpt|bin)$/i;
const indexFile = /\.(?:safetensors|bin)\.index\.json$/;

/** Files of weights in some folders. */
export interface FoundFiles {
  /** Those that hold the part. */
  readonly found: readonly string[];
  /** Those that hold no part of a Wan model, and no LoRA for one. */
  readonly strangers: readonly string[];
}

/**
 * The files of some folders that hold a part of a Wan model, told by their headers. Shards count as one, their index if they have one.
 * @throws DitrunError where no file has the part and one cannot be read: a Git LFS pointer, for instance.
 */
export async function findByContent(folders: readonly string[], part: Part): Promise<FoundFiles> {
  const found: string[] = [];
  const strangers: string[] = [];
  let failure: DitrunError | undefined;
  for (const folder of folders)
    for (const path of candidates(folder, (await readdir(folder).catch((): string[] => [])).sort())) {
      try {
        const file = await openTensors(path);
        const parts = partsOf(file).map(({ spelling }) => spelling.part);
        if (parts.includes(part)) found.push(path);
        if (parts.length === 0 && !isLora(file)) strangers.push(path);
        await file.close();
      } catch (error) {
        if (!(error instanceof DitrunError)) throw error;
        failure ??= error;
      }
    }
  if (found.length === 0 && failure) throw failure;
  return { found, strangers };
}

function candidates(folder: string, names: readonly string[]): string[] {
  const indices = names.filter((name) => indexFile.test(name));
  const stems = indices.map((name) => name.replace(indexFile, ""));
  const single = names.filter((name) => weightsFile.test(name) && !isShard(name));
  const shards = names.filter((name) => weightsFile.test(name) && isShard(name));
  // Of shards without an index one stands for all.
  const sets = new Map(shards.map((name) => [name.replace(/-\d+-of-.*$/, ""), name]));
  const loose = [...sets].flatMap(([stem, name]) => (stems.includes(stem) ? [] : [name]));
  return [...indices, ...single, ...loose].map((name) => join(folder, name));
}
