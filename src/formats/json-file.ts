import { DitrunError, messageOf } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { readTextFile } from "../files/text-file.js";
import { refuseLfsPointer } from "./lfs-pointer.js";
import { shown } from "./shown.js";

/** Four times the largest that is published: a tokenizer of 256,000 pieces. */
const MOST_BYTES = 64 * 2 ** 20;

/**
 * Reads a JSON file, still to be checked.
 * @param name what messages call it. @throws DitrunError when it cannot be read, is a Git LFS pointer or is no JSON.
 */
export async function readJsonFile(path: string, name = path): Promise<unknown> {
  const text = await readTextFile(path, MOST_BYTES).catch((error: unknown) => {
    throw new DitrunError("ERR_FILE_READ", `${name} could not be read: ${fileFailure(error)}.`, { cause: error });
  });
  refuseLfsPointer(path, text);
  try {
    return JSON.parse(text);
  } catch (error) {
    // The parser quotes the file.
    throw new DitrunError(
      "ERR_JSON",
      `${name} is not valid JSON (${shown(messageOf(error))}): copy or download it again.`,
    );
  }
}
