import { open, rename, rm } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";

/** `video.mp4`, `video-2.mp4`, `video-3.mp4`, …; of a folder `frames/`, `frames-2/`, … @param number from 1 on. */
export function numbered(path: string, number: number): string {
  if (number === 1) return path;
  const ending = path.endsWith("/") ? "" : extname(path);
  const name = `${basename(path, ending)}-${number}${path.endsWith("/") ? "/" : ending}`;
  return path.includes("/") ? join(dirname(path), name) : name;
}

/** True for the name of a file that `numbered` makes of `path`, from 2 on. */
export function isNumberOf(path: string, name: string): boolean {
  const [, number] = /-([1-9]\d*)(?:\.[^.]*)?$/.exec(name) ?? [];
  return number !== undefined && numbered(basename(path), Number(number)) === name;
}

/**
 * Gives a finished temporary file its name: `path`, or the next number where something has that name. Of two runs that
 * finish at once each keeps its file. @param overwrite takes `path` itself, whatever is there.
 * @returns the name. @throws the file system's own error.
 */
export async function takeName(temporary: string, path: string, overwrite: boolean): Promise<string> {
  const name = overwrite ? path : await claim(path);
  try {
    await rename(temporary, name);
  } catch (error) {
    if (!overwrite) await rm(name, { force: true });
    throw error;
  }
  return name;
}

/** Makes an empty file under the first free name: only one process can, and what takes its place then replaces nothing else. */
async function claim(path: string): Promise<string> {
  for (let number = 1; ; number++) {
    const name = numbered(path, number);
    try {
      await (await open(name, "wx")).close();
      return name;
    } catch (error) {
      if (!isTaken(error)) throw error;
    }
  }
}

/** True for the error of a name that something has already. */
export function isTaken(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EEXIST";
}
