import { rm } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { DitrunError, messageOf } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { takeName } from "../files/free-name.js";
import { openTemporary } from "../files/temporary.js";

/**
 * Writes an answer's body to a file, which has its name only once it is whole.
 * @returns the name: `out`, or the next free number. @throws DitrunError ERR_FILE_WRITE, or ERR_SERVER_UNREACHABLE where the body breaks off.
 */
export async function saveContent(
  content: Response,
  out: string,
  overwrite: boolean,
): Promise<{ out: string; bytes: number }> {
  const cannot = (error: unknown) =>
    new DitrunError("ERR_FILE_WRITE", `Cannot write ${out}: ${fileFailure(error)}.`, { cause: error });
  const { name, file } = await openTemporary(out).catch((error: unknown) => {
    throw cannot(error);
  });
  const target = file.createWriteStream();
  let writing: unknown;
  target.once("error", (error) => {
    writing = error;
  });
  try {
    const { body } = content;
    if (body === null) throw new Error("it has no body");
    await pipeline(Readable.from(body), target);
    const bytes = target.bytesWritten;
    const declared = content.headers.get("content-length");
    if (declared !== null && Number(declared) !== bytes) throw new Error(`${bytes} of ${declared} bytes came`);
    return { out: await takeName(name, out, overwrite), bytes };
  } catch (error) {
    await rm(name, { force: true });
    if (error instanceof Error && "syscall" in error && (error === writing || "dest" in error)) throw cannot(error);
    throw new DitrunError("ERR_SERVER_UNREACHABLE", `The video's file broke off: ${messageOf(error)}.`, {
      cause: error,
    });
  }
}
