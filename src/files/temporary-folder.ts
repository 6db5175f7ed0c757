import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { DitrunError } from "../failure.js";
import { fileFailure } from "./file-failure.js";
import { makeTemporaryFolder } from "./temporary.js";

/** Has `cleanUp` run where the process is ended before its work is. @returns how to call that off. */
export type OnEarlyEnd = (cleanUp: () => Promise<void>) => () => void;

/**
 * Runs the body with a folder of its own, which is gone afterwards, also when the process is ended early.
 * @throws DitrunError when no folder can be made there.
 */
export async function withTemporaryFolder<T>(
  name: string,
  onEarlyEnd: OnEarlyEnd,
  body: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = await makeTemporaryFolder(tmpdir(), `ditrun-${name}`).catch((error: unknown) => {
    throw new DitrunError(
      "ERR_FOLDER",
      `No temporary folder can be made in ${tmpdir()}: ${fileFailure(error)}; set TMPDIR to a folder that can be written.`,
    );
  });
  const remove = () => rm(folder, { recursive: true, force: true });
  const callOff = onEarlyEnd(remove);
  try {
    return await body(folder);
  } finally {
    callOff();
    await remove();
  }
}
