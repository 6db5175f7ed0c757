import { access, constants, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { DitrunError } from "../protocol/failure.js";
import { fileFailure } from "./file-failure.js";

/**
 * Finds out before the work whether a file can be written at its end.
 * @param renamed the file is made under another name and then takes this one, which would put it in a device's place.
 * @throws DitrunError when it is a directory, or no regular file that a renamed one could replace, or its folder cannot be written.
 */
export async function checkOutputFile(path: string, renamed: boolean): Promise<void> {
  const refuse = (why: string): never => {
    throw new DitrunError(`Cannot write ${path === "" ? '""' : path}: ${why}.`);
  };
  if (path === "") refuse("a file needs a name");
  const present = await stat(path).catch(() => undefined);
  if (present?.isDirectory()) refuse("it is a directory");
  if (present?.isFile() === false) {
    if (renamed) refuse("it is a device or a pipe; name a regular file");
    return;
  }
  // What is written in place needs its own permission, what replaces it or is new its folder's.
  const written = present !== undefined && !renamed ? path : dirname(resolve(path));
  await access(written, constants.W_OK).catch((error: unknown) => refuse(fileFailure(error)));
}
