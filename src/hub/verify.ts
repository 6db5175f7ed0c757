import { createReadStream } from "node:fs";
import { readdir, realpath, rm, stat } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { hashFor } from "./verified-file.js";

export interface WrongFile {
  /** Within the snapshot. */
  readonly path: string;
  /** Where its bytes are. */
  readonly blob: string;
}

/**
 * Hashes every file of a snapshot in a Hugging Face cache, where each is a link to a blob that is named by its hash.
 * @param onFile called with the path of each file before it is read, which may take seconds.
 * @returns the files whose blob is not what its name says. @throws DitrunError for a folder without such links, and where one cannot be read.
 */
export async function wrongFiles(directory: string, onFile: (path: string) => void): Promise<WrongFile[]> {
  const wrong: WrongFile[] = [];
  let checked = 0;
  const entries = await readdir(directory, { recursive: true }).catch((error: unknown) => {
    throw new DitrunError("ERR_FILE_READ", `Cannot read ${directory}: ${fileFailure(error)}.`);
  });
  for (const path of entries.sort()) {
    const blob = await realpath(join(directory, path)).catch(() => undefined);
    if (blob === undefined || basename(dirname(blob)) !== "blobs") continue;
    const oid = basename(blob);
    if (!/^[0-9a-f]{40}(?:[0-9a-f]{24})?$/.test(oid)) continue;
    checked += 1;
    onFile(path);
    try {
      const hash = hashFor({ size: (await stat(blob)).size, oid });
      for await (const chunk of createReadStream(blob, { highWaterMark: 2 ** 20 })) hash.update(chunk);
      if (hash.digest("hex") !== oid) wrong.push({ path, blob });
    } catch (error) {
      throw new DitrunError("ERR_FILE_READ", `Cannot read ${blob}: ${fileFailure(error)}.`);
    }
  }
  if (checked > 0) return wrong;
  throw new DitrunError(
    "ERR_OPTION_CONFLICT",
    `--verify checks a checkpoint in the Hugging Face cache, whose files are named by their hashes; ${directory} has no such names.`,
  );
}

/** Removes wrong blobs, so that a download fetches them anew. @throws DitrunError when one cannot be removed. */
export async function removeWrong(files: readonly WrongFile[]): Promise<void> {
  for (const { blob } of files)
    await rm(blob, { force: true }).catch((error: unknown) => {
      throw new DitrunError("ERR_FILE_WRITE", `Cannot remove ${blob}: ${fileFailure(error)}.`);
    });
}

/** @throws DitrunError naming the wrong files, if there are any. @param remedy what to do, to end the sentence with. */
export function refuseWrong(directory: string, wrong: readonly WrongFile[], remedy: string): void {
  if (wrong.length === 0) return;
  const names = wrong.map(({ path, blob }) => `${path} (${relative(dirname(dirname(blob)), blob)})`).join(", ");
  throw new DitrunError(
    "ERR_CHECKPOINT_HASH",
    `${directory} has files that are not what their hashes say: ${names}; ${remedy}.`,
  );
}
