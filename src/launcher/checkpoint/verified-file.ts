import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { fileFailure } from "../../formats/file-failure.js";
import { DitrunError, exitCodes, messageOf } from "../../protocol/failure.js";

/** What a file must be: its size, and its SHA-256 (64 digits) or its git blob id (40 digits). */
export interface Expected {
  readonly size: number;
  readonly oid: string;
}

export interface Fetch {
  /** Where the file goes; it grows as `TARGET.incomplete`. */
  readonly target: string;
  readonly expected: Expected;
  /** What messages call it. */
  readonly label: string;
  /**
   * Opens the remote file, whose slices are fetched on demand. A DitrunError ends the download; anything else counts as a
   * broken connection and is tried again.
   */
  readonly open: () => Promise<Blob>;
  /** Called with the number of bytes that each write adds. */
  readonly onBytes: (bytes: number) => void;
}

/** Attempts in a row that may bring no byte. */
const maxFailures = 5;

/**
 * Fetches a file, going on where an earlier attempt or an earlier run was cut off, and gives it its name once size and hash
 * are right. Throws DitrunError if they are wrong, the disk is full, or five attempts in a row bring nothing.
 */
export async function fetchVerified(fetch: Fetch): Promise<void> {
  const { target, expected, label } = fetch;
  const incomplete = `${target}.incomplete`;
  const local = (error: unknown): never => {
    throw new DitrunError(`Cannot write ${incomplete}: ${fileFailure(error)}.`);
  };
  const file = await open(incomplete, "a").catch(local);
  try {
    const hash =
      expected.oid.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${expected.size}\0`);
    const begun = await resumable(file, expected.size).catch(local);
    if (begun > 0) for await (const chunk of createReadStream(incomplete)) hash.update(chunk);
    await append(fetch, file, hash, begun, local);

    const found = hash.digest("hex");
    if (found !== expected.oid) {
      await rm(incomplete, { force: true });
      throw new DitrunError(
        `${label} was downloaded with the hash ${found}, but it should have ${expected.oid}; run the same command again to fetch it anew.`,
        exitCodes.environment,
      );
    }
  } finally {
    await file.close();
  }
  await rename(incomplete, target).catch(local);
}

/** Bytes of an earlier run to go on from; a file that is too long is emptied. */
async function resumable(file: FileHandle, size: number): Promise<number> {
  const { size: begun } = await file.stat();
  if (begun <= size) return begun;
  await file.truncate(0);
  return 0;
}

async function append(
  { expected, label, open: openRemote, onBytes }: Fetch,
  file: FileHandle,
  hash: Hash,
  begun: number,
  local: (error: unknown) => never,
): Promise<void> {
  let done = begun;
  for (let failures = 0; done < expected.size; ) {
    const before = done;
    try {
      const remote = await openRemote();
      if (remote.size !== expected.size)
        throw new DitrunError(`${label} should have ${expected.size} bytes, but the server offers ${remote.size}.`);
      for await (const chunk of remote.slice(done).stream()) {
        await file.writeFile(chunk).catch(local);
        hash.update(chunk);
        done += chunk.byteLength;
        onBytes(chunk.byteLength);
      }
      if (done < expected.size) throw new Error(`the connection ended ${expected.size - done} bytes early`);
    } catch (error) {
      // What the disk or the hub refuses will be refused again; only a broken connection is worth another attempt.
      if (error instanceof DitrunError) throw error;
      failures = done > before ? 1 : failures + 1;
      if (failures >= maxFailures)
        throw new DitrunError(
          `The download of ${label} was cut off after ${done} of ${expected.size} bytes (${messageOf(error)}); run the same command again to go on from there.`,
          exitCodes.environment,
        );
      await setTimeout(200 * 2 ** failures);
    }
  }
  if (done > expected.size)
    throw new DitrunError(`The server sent more than the ${expected.size} bytes of ${label}.`, exitCodes.environment);
}
