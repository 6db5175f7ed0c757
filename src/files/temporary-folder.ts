import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { endOnInterrupt } from "../cli/interrupts.js";
import { DitrunError } from "../failure.js";
import { fileFailure } from "./file-failure.js";
import { makeTemporaryFolder } from "./temporary.js";

/**
 * Runs the body with a folder of its own, which is gone afterwards, also when a signal ends the launcher.
 * @throws DitrunError when no folder can be made there.
 */
export async function withTemporaryFolder<T>(name: string, body: (folder: string) => Promise<T>): Promise<T> {
  const folder = await makeTemporaryFolder(tmpdir(), `ditrun-${name}`).catch((error: unknown) => {
    throw new DitrunError(
      "ERR_FOLDER",
      `No temporary folder can be made in ${tmpdir()}: ${fileFailure(error)}; set TMPDIR to a folder that can be written.`,
    );
  });
  const remove = () => rm(folder, { recursive: true, force: true });
  const stopListening = endOnInterrupt(remove);
  try {
    return await body(folder);
  } finally {
    stopListening();
    await remove();
  }
}
