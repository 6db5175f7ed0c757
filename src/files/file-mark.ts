import { stat } from "node:fs/promises";
import { DitrunError } from "../failure.js";
import { fileFailure } from "./file-failure.js";

/** What tells that a file is not what it was, without reading it: where it stands, its size and when it was written. */
export type FileMarks = ReadonlyMap<string, string>;

/** @throws DitrunError when a file is not there. */
export async function marksOf(paths: readonly string[]): Promise<FileMarks> {
  const marks = await Promise.all(paths.map(async (path) => [path, await markOf(path)] as const));
  return new Map(marks);
}

async function markOf(path: string): Promise<string> {
  const { dev, ino, size, mtimeNs } = await stat(path, { bigint: true }).catch((error: unknown) => {
    throw new DitrunError("ERR_FILE_READ", `Cannot read ${path}: ${fileFailure(error)}.`);
  });
  return [dev, ino, size, mtimeNs].join("-");
}

/** @param then what to do about a file that has changed, behind its name. @throws DitrunError where one has, or has gone. */
export async function requireMarks(marks: FileMarks, then: string): Promise<void> {
  const now = await marksOf([...marks.keys()]);
  for (const [path, mark] of marks)
    if (now.get(path) !== mark) throw new DitrunError("ERR_FILE_CHANGED", `${path} ${then}.`);
}
