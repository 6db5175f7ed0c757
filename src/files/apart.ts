import type { BigIntStats } from "node:fs";
import { readdir, readlink, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { DitrunError } from "../failure.js";

/** A file that a command line names, or a folder of files to read. */
export interface NamedFile {
  /** What names it, for messages: `--json`. */
  readonly option: string;
  readonly path: string;
  readonly use: "read" | "written";
  /** Other names that a written file may take. */
  readonly takes?: { readonly folder: string; readonly name: (base: string) => boolean };
}

/**
 * Refuses a command line that would write over its own files: two outputs that are one file, or an output that is an input, also
 * by way of links. To be called before anything is written. @throws DitrunError with both options and the file.
 */
export async function checkOutputs(files: readonly NamedFile[]): Promise<void> {
  for (const [index, file] of files.entries()) {
    if (file.use === "read") continue;
    await checkApart(
      file,
      files.filter((other, place) => other.use === "read" || place < index),
    );
  }
}

/** The same of one output with all others. @throws DitrunError as checkOutputs does. */
export async function checkApart(output: NamedFile, others: readonly NamedFile[]): Promise<void> {
  if (output.path === "") return;
  const { option, path } = output;
  const mine = await lookAt(path);
  for (const other of others) {
    if (other.path === "") continue;
    const theirs = await lookAt(other.path);
    if (other.use === "written") {
      if (areOne(mine, theirs)) {
        const names =
          resolve(path) === resolve(other.path)
            ? `${other.option} and ${option} both name ${path}`
            : `${other.path} of ${other.option} and ${path} of ${option} are one file`;
        throw new DitrunError("ERR_FILE_SHARED", `${names}: give each a file of its own.`);
      }
      if ((await mayTake(other, mine)) || (await mayTake(output, theirs))) {
        throw new DitrunError(
          "ERR_FILE_SHARED",
          `${other.option} ${other.path} and ${option} ${path} may come to be one file: give each a name of its own.`,
        );
      }
    } else {
      const read = areOne(mine, theirs) ? other.path : mine.stat && (await findIn(other.path, theirs, mine));
      if (read === undefined) continue;
      throw new DitrunError(
        "ERR_FILE_SHARED",
        `${option} ${path} would write over ${read}, which ${other.option} reads: choose another file.`,
      );
    }
  }
}

interface Look {
  /** Undefined where there is nothing yet. */
  readonly stat: BigIntStats | undefined;
  /** Its path without links, whether it is there or not. */
  readonly place: string;
}

async function lookAt(path: string): Promise<Look> {
  return { stat: await stat(path, { bigint: true }).catch(() => undefined), place: await placeOf(resolve(path)) };
}

/** Of links, as the system follows at most. */
const MOST_LINKS = 40;

/** Where a file would come to be: a link that leads to nothing yet is followed too. */
async function placeOf(path: string, links = MOST_LINKS): Promise<string> {
  const real = await realpath(path).catch(() => undefined);
  if (real !== undefined || path === "/" || links === 0) return real ?? path;
  const folder = await placeOf(dirname(path), links - 1);
  const target = await readlink(path).catch(() => undefined);
  return target === undefined ? join(folder, basename(path)) : placeOf(resolve(folder, target), links - 1);
}

function areOne(a: Look, b: Look): boolean {
  if (takesEverything(a) || takesEverything(b)) return false;
  if (a.stat && b.stat) return a.stat.dev === b.stat.dev && a.stat.ino === b.stat.ino;
  return a.place === b.place;
}

/** True for /dev/null, a terminal or a socket: what is written there replaces nothing. */
function takesEverything({ stat }: Look): boolean {
  return stat !== undefined && (stat.isCharacterDevice() || stat.isSocket());
}

async function mayTake({ takes }: NamedFile, { place }: Look): Promise<boolean> {
  return takes?.name(basename(place)) === true && dirname(place) === (await placeOf(resolve(takes.folder)));
}

/** Checkpoints have files in folders of folders, such as google/umt5-xxl/. */
const MOST_LEVELS = 3;

/** The path by which a folder, or one in it, has the file `wanted`; undefined where none has. */
async function findIn(path: string, look: Look, wanted: Look, levels = MOST_LEVELS): Promise<string | undefined> {
  if (!look.stat?.isDirectory() || levels === 0) return undefined;
  for (const name of await readdir(path).catch((): string[] => [])) {
    const each = join(path, name);
    const found = await lookAt(each);
    if (areOne(found, wanted)) return each;
    const within = await findIn(each, found, wanted, levels - 1);
    if (within !== undefined) return within;
  }
  return undefined;
}
