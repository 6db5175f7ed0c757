import { createHash, type Hash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { DitrunError, messageOf } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { openTemporary } from "../files/temporary.js";
import { shown } from "../formats/shown.js";

/** What a file must be: its size, and its SHA-256 (64 digits) or its git blob id (40 digits). */
export interface Expected {
  readonly size: number;
  readonly oid: string;
}

export interface Fetch {
  /** Where the file goes when it is whole. */
  readonly target: string;
  readonly expected: Expected;
  /**
   * True where nobody else writes `TARGET.incomplete`: the file grows there, and the next run goes on from what a killed one left.
   * False: in a file of its own.
   */
  readonly resumes: boolean;
  /** What messages call it. */
  readonly label: string;
  /**
   * Opens the remote file, whose slices are fetched on demand. A DitrunError ends the download; anything else counts as a
   * broken connection and is tried again.
   */
  readonly open: () => Promise<Blob>;
  /** Called after each write with the number of bytes that are there. */
  readonly onBytes: (done: number) => void;
}

/** Attempts in a row that may bring no byte. */
const maxFailures = 5;

/** The hash that names a file of so many bytes by an id of this length: SHA-256, or git's of a blob. */
export function hashFor({ size, oid }: Expected): Hash {
  return oid.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

/**
 * Fetches a file, going on where an earlier attempt or an earlier run was cut off, and gives it its name once size and hash
 * are right. What an earlier run left is fetched anew when it proves wrong.
 * Throws DitrunError if they are wrong all the same, the disk is full, or five attempts in a row bring nothing.
 */
export async function fetchVerified(fetch: Fetch): Promise<void> {
  const { target, expected, label, resumes } = fetch;
  const name = `${target}.incomplete`;
  const local = (error: unknown): never => {
    throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${name}: ${fileFailure(error)}.`);
  };
  const growing = await (resumes
    ? open(name, constants.O_RDWR | constants.O_CREAT).then((file) => ({ name, file }))
    : openTemporary(target)
  ).catch(local);
  try {
    const { size: begun } = await growing.file.stat();
    let found = await fill(fetch, growing, begun <= expected.size ? begun : 0, local);
    if (found !== expected.oid && begun > 0) found = await fill(fetch, growing, 0, local);
    if (found !== expected.oid) {
      await rm(growing.name, { force: true });
      throw new DitrunError(
        "ERR_DOWNLOAD",
        `${label} was downloaded with the hash ${found}, but it should have ${expected.oid}; run the same command again to fetch it anew.`,
      );
    }
    await growing.file.datasync().catch(local);
    await rename(growing.name, target).catch(local);
  } catch (error) {
    if (!resumes) await rm(growing.name, { force: true });
    throw error;
  } finally {
    await growing.file.close();
  }
}

/**
 * Brings the file to its size, keeping its first `begun` bytes.
 * @returns the hash of what it then holds. @throws DitrunError when attempts bring nothing, or the disk is full.
 */
async function fill(
  { expected, label, open: openRemote, onBytes }: Fetch,
  { name, file }: { name: string; file: FileHandle },
  begun: number,
  local: (error: unknown) => never,
): Promise<string> {
  const hash = hashFor(expected);
  let done = begun;
  if ((await file.stat()).size > begun) await file.truncate(begun).catch(local);
  if (begun > 0) for await (const chunk of createReadStream(name, { end: begun - 1 })) hash.update(chunk);
  onBytes(done);
  for (let failures = 0; done < expected.size; ) {
    const before = done;
    try {
      const remote = await openRemote();
      if (remote.size !== expected.size)
        throw new DitrunError(
          "ERR_DOWNLOAD",
          `${label} should have ${expected.size} bytes, but the server offers ${remote.size}.`,
        );
      for await (const chunk of remote.slice(done).stream()) {
        if (done + chunk.byteLength > expected.size)
          throw new DitrunError(
            "ERR_DOWNLOAD",
            `The server sends more than the ${expected.size} bytes of ${label}; try again, or check HF_ENDPOINT.`,
          );
        await writeAt(file, chunk, done).catch(local);
        hash.update(chunk);
        done += chunk.byteLength;
        onBytes(done);
      }
      if (done < expected.size) throw new Error(`the connection ended ${expected.size - done} bytes early`);
    } catch (error) {
      // What the disk or the hub refuses will be refused again; only a broken connection is worth another attempt.
      if (error instanceof DitrunError) throw error;
      failures = done > before ? 1 : failures + 1;
      if (failures >= maxFailures)
        throw new DitrunError(
          "ERR_DOWNLOAD",
          `The download of ${label} was cut off after ${done} of ${expected.size} bytes (${shown(messageOf(error))}); run the same command again to go on from there.`,
        );
      await setTimeout(200 * 2 ** failures);
    }
  }
  // Someone else who wrote here, without a lock, made it longer.
  const { size } = await file.stat();
  return size === expected.size ? hash.digest("hex") : `of ${size} bytes instead of ${expected.size}`;
}

/** At its place, whoever else may have written there. */
async function writeAt(file: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < chunk.byteLength; ) {
    const { bytesWritten } = await file.write(chunk, done, chunk.byteLength - done, position + done);
    done += bytesWritten;
  }
}
