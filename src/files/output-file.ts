import { access, constants, rm, stat, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { DitrunError } from "../failure.js";
import { fileFailure } from "./file-failure.js";

/**
 * Finds out before the work whether a file can be written at its end.
 * @param renamed the file is made under another name and then takes this one, which would put it in a device's place.
 * @throws DitrunError when it is a directory, or no regular file that a renamed one could replace, or its folder cannot be written.
 */
export async function checkOutputFile(path: string, renamed: boolean): Promise<void> {
  const refuse = (why: string): never => {
    throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${path === "" ? '""' : path}: ${why}.`);
  };
  if (path === "") refuse("a file needs a name");
  const present = await stat(path).catch(() => undefined);
  if (present?.isDirectory()) refuse("it is a directory");
  if (present?.isFile() === false) {
    if (renamed) refuse("it is a device or a pipe; name a regular file");
    return;
  }
  // What is written in place needs its own permission, what replaces it or is new its folder's.
  const folder = dirname(resolve(path));
  const written = present !== undefined && !renamed ? path : folder;
  await access(written, constants.W_OK).catch((error: unknown) => {
    const isGone = error instanceof Error && "code" in error && error.code === "ENOENT";
    refuse(isGone ? `there is no folder ${folder}` : fileFailure(error));
  });
}

/**
 * The same for what takes minutes to compute, and is made under another name. @param option that names the file.
 * @throws DitrunError as checkOutputFile does, and where the file is there already and need not be replaced.
 */
export async function checkNewFile(option: string, path: string, overwrite: boolean): Promise<void> {
  await checkOutputFile(path, true);
  if (overwrite || (await stat(path).catch(() => undefined)) === undefined) return;
  throw new DitrunError(
    "ERR_FILE_EXISTS",
    `${option} names ${path}, which is there already: choose another name, or add --overwrite.`,
  );
}

/** Writes a file in place. @throws DitrunError naming it when it cannot be written. */
export async function writeOutput(file: string, text: string): Promise<void> {
  try {
    await writeFile(file, text);
  } catch (error) {
    // Half a document would be taken for a whole one; a device stays.
    if ((await stat(file).catch(() => undefined))?.isFile()) await rm(file, { force: true });
    throw new DitrunError("ERR_FILE_WRITE", `${file} could not be written: ${fileFailure(error)}.`, { cause: error });
  }
}
