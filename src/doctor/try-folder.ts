import { randomBytes } from "node:crypto";
import { mkdir, rmdir, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileFailure } from "../files/file-failure.js";

/** What came of a folder. */
export interface TriedFolder {
  readonly folder: string;
  /** Whether it is there; where it is not, the nearest folder above it was tried. */
  readonly there: boolean;
  /** Why nothing can be made in it; null where it can. */
  readonly failure: string | null;
  readonly freeBytes: number;
}

/** Makes a folder in it and removes that again, and looks how much is free. Never throws. */
export async function tryFolder(folder: string): Promise<TriedFolder> {
  const nearest = await nearestOf(folder);
  try {
    const { bavail, bsize } = await statfs(nearest);
    const trial = join(nearest, `.ditrun-doctor-${randomBytes(4).toString("hex")}`);
    await mkdir(trial);
    await rmdir(trial);
    return { folder, there: nearest === folder, failure: null, freeBytes: bavail * bsize };
  } catch (error) {
    return { folder, there: nearest === folder, failure: fileFailure(error), freeBytes: 0 };
  }
}

/** The folder, or the nearest above it that is there. */
async function nearestOf(folder: string): Promise<string> {
  const found = await stat(folder).catch(() => undefined);
  return found !== undefined || dirname(folder) === folder ? folder : nearestOf(dirname(folder));
}
