import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, lstat, open, rename, rm, statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { withFileLock } from "../files/file-lock.js";
import { isTaken } from "../files/free-name.js";
import { writeAll } from "../files/write-all.js";
import { bytesInWords } from "../text.js";
import type { SafetensorsLayout } from "./safetensors-layout.js";

/** What follows the data while the file grows: this, a hash of what it is made of, and how many units are there, as 64 bits. */
const MAGIC = Buffer.from("ditrun unfinished file\n");
const HASH_BYTES = 32;
const COUNT_OFFSET = MAGIC.byteLength + HASH_BYTES;
const TRAILER_BYTES = COUNT_OFFSET + 8;
/** So much is written between two looks at what is safely on the disk. */
const SYNC_BYTES = 2 ** 28;

export interface PartialOptions {
  /** Everything that its bytes depend on, beside the header: files with their times, and settings. */
  readonly madeOf: string;
  /** Replaces what has the file's name by the end. */
  readonly overwrite: boolean;
}

/** The name of what grows beside a file. */
export const partialName = (path: string) => `${path}.partial`;

/**
 * Looks at what has the name of a file that would grow. @throws DitrunError where that is no such file, which would be lost: something else,
 * a link, a pipe or a folder.
 */
export async function checkPartial(path: string): Promise<void> {
  const name = partialName(path);
  try {
    const there = await lstat(name);
    if (there.isFile() && (there.size === 0 || (await isPartial(name)))) return;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return;
    throw writeFailure(name, error);
  }
  throw new DitrunError(
    "ERR_FILE_EXISTS",
    `${name} is there, and is no unfinished file of ditrun: move it away, or choose another name.`,
  );
}

/**
 * A safetensors file that grows beside its name, as FILE.partial, and takes the name when it is whole. Whoever is killed leaves it, and the
 * next one goes on where it was safely on the disk. Its owner counts units of work.
 */
export class PartialSafetensors {
  #written = 0;
  #safe: number;
  #done: number;

  private constructor(
    private readonly path: string,
    private readonly layout: SafetensorsLayout,
    private readonly file: FileHandle,
    private readonly overwrite: boolean,
    done: number,
  ) {
    this.#safe = done;
    this.#done = done;
  }

  /**
   * Opens what was left of the same work, else begins anew, and runs the body. If that returns, the file takes its name.
   * @throws DitrunError when another process writes it, the disk has too little room or the name is taken; and what the body throws.
   */
  static async write(
    path: string,
    layout: SafetensorsLayout,
    { madeOf, overwrite }: PartialOptions,
    body: (file: PartialSafetensors) => Promise<void>,
  ): Promise<void> {
    const name = partialName(path);
    const refuse = (): never => {
      throw new DitrunError(
        "ERR_FILE_WRITE",
        `${name} is being written by another process: wait for it, or choose another name.`,
      );
    };
    await checkPartial(path);
    await withFileLock(name, refuse, async () => {
      const hash = createHash("sha256").update(layout.header).update(madeOf).digest();
      const file = await open(name, constants.O_RDWR | constants.O_NOFOLLOW).catch((error: unknown) => {
        throw writeFailure(name, error);
      });
      try {
        const done = (await doneOf(file, layout, hash)) ?? (await begin(path, file, layout, hash));
        const partial = new PartialSafetensors(path, layout, file, overwrite, done);
        try {
          await body(partial);
        } catch (error) {
          // What is there serves the next run.
          await partial.#keep().catch(() => undefined);
          throw error;
        }
        await partial.#finish();
      } finally {
        await file.close();
      }
    });
  }

  /** Units that were there from the beginning, or have been counted since. */
  get done(): number {
    return this.#done;
  }

  /** Writes bytes of a tensor. @param offset from its first byte on. @throws DitrunError */
  async add(tensor: string, offset: number, bytes: Uint8Array): Promise<void> {
    const place = this.layout.offsets.get(tensor);
    if (place === undefined) throw new Error(`There is no room for ${tensor}.`);
    await writeAll(this.file, bytes, place + offset).catch((error: unknown) => {
      throw writeFailure(partialName(this.path), error);
    });
    this.#written += bytes.byteLength;
  }

  /** One more unit is there, with all that was added for it. */
  async count(): Promise<void> {
    this.#done++;
    if (this.#written >= SYNC_BYTES) await this.#keep();
  }

  /** Tells the next run what it need not do again; not before that is on the disk. */
  async #keep(): Promise<void> {
    this.#written = 0;
    await this.file.datasync();
    if (this.#safe === this.#done) return;
    this.#safe = this.#done;
    await writeAll(this.file, countBytes(this.#done), this.layout.bytes + COUNT_OFFSET);
  }

  async #finish(): Promise<void> {
    const { path, layout, file, overwrite } = this;
    // Only one process can make an empty file of this name, and what takes its place then replaces nothing else.
    if (!overwrite) await claim(path);
    try {
      await file.truncate(layout.bytes);
      await file.sync();
      await rename(partialName(path), path);
    } catch (error) {
      if (!overwrite) await rm(path, { force: true });
      throw writeFailure(path, error);
    }
  }
}

/** @throws DitrunError where the name is taken. */
async function claim(path: string): Promise<void> {
  try {
    await (await open(path, "wx")).close();
  } catch (error) {
    if (!isTaken(error)) throw writeFailure(path, error);
    throw new DitrunError(
      "ERR_FILE_EXISTS",
      `${path} has come to be there meanwhile: add --overwrite, or choose another name.`,
    );
  }
}

/** Whether a file ends as one that grows. */
async function isPartial(name: string): Promise<boolean> {
  const file = await open(name, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { size } = await file.stat();
    if (size < TRAILER_BYTES) return false;
    const { buffer } = await file.read(Buffer.alloc(MAGIC.byteLength), 0, MAGIC.byteLength, size - TRAILER_BYTES);
    return buffer.equals(MAGIC);
  } finally {
    await file.close();
  }
}

function countBytes(count: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(count));
  return bytes;
}

/** Units that a file has of the same work; undefined where it is of other work, or of none. */
async function doneOf(file: FileHandle, { bytes }: SafetensorsLayout, hash: Buffer): Promise<number | undefined> {
  const { size } = await file.stat();
  if (size !== bytes + TRAILER_BYTES) return undefined;
  const { buffer } = await file.read(Buffer.alloc(TRAILER_BYTES), 0, TRAILER_BYTES, bytes);
  const isSame = buffer.subarray(0, COUNT_OFFSET).equals(Buffer.concat([MAGIC, hash]));
  return isSame ? Number(buffer.readBigUInt64LE(COUNT_OFFSET)) : undefined;
}

/** Makes room and writes the header. @returns no units. @throws DitrunError where the disk has too little room. */
async function begin(path: string, file: FileHandle, layout: SafetensorsLayout, hash: Buffer): Promise<number> {
  const name = partialName(path);
  try {
    await file.truncate(0);
    const { bavail, bsize } = await statfs(dirname(resolve(path)));
    const free = bavail * bsize;
    if (free < layout.bytes + TRAILER_BYTES) {
      await rm(name, { force: true });
      throw new DitrunError(
        "ERR_FILE_WRITE",
        `${path} will have ${bytesInWords(layout.bytes)}, but its disk has ${bytesInWords(free)} left: free some, or choose another disk.`,
      );
    }
    // First what it is known by, should this process end here.
    await writeAll(file, Buffer.concat([MAGIC, hash, countBytes(0)]), layout.bytes);
    await writeAll(file, layout.header, 0);
    return 0;
  } catch (error) {
    throw error instanceof DitrunError ? error : writeFailure(name, error);
  }
}

function writeFailure(path: string, error: unknown): DitrunError {
  return new DitrunError("ERR_FILE_WRITE", `Cannot write ${path}: ${fileFailure(error)}.`);
}
