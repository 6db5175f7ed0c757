import { type FileHandle, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import type { z } from "zod";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { openTemporary } from "../files/temporary.js";

interface Waiting {
  readonly work: () => Promise<void>;
  /** The line to append, where that is the work. */
  readonly line?: string;
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * A file of JSON lines that only grows, each line on the disk before its append resolves. Appends that wait together share one
 * flush. A line that a crash cut off was never promised to anybody, and is dropped.
 */
export class Journal<Entry> {
  readonly #waiting: Waiting[] = [];
  #busy = false;
  /** An append failed, and may have left half a line behind. */
  #torn = false;
  #lines: number;

  private constructor(
    private readonly path: string,
    private file: FileHandle,
    /** Bytes of whole lines. */
    private size: number,
    lines: number,
  ) {
    this.#lines = lines;
  }

  /**
   * Opens a journal, new where there is none.
   * @returns it, and its entries in their order. @throws DitrunError ERR_JSON where a line before the last ones is damaged or one is not of this
   * ditrun, or ERR_FILE_READ.
   */
  static async open<Entry>(
    path: string,
    schema: z.ZodType<Entry>,
  ): Promise<{ journal: Journal<Entry>; entries: Entry[] }> {
    let file: FileHandle | undefined;
    try {
      file = await open(path, "a+", 0o600);
      const { entries, bytes } = readLines(path, await readFile(path), schema);
      await file.truncate(bytes);
      await file.datasync();
      await syncFolder(path);
      return { journal: new Journal<Entry>(path, file, bytes, entries.length), entries };
    } catch (error) {
      await file?.close();
      if (error instanceof DitrunError) throw error;
      throw new DitrunError("ERR_FILE_READ", `${path} cannot be used: ${fileFailure(error)}.`, { cause: error });
    }
  }

  /** Lines in the file, those that others replace included. */
  get lines(): number {
    return this.#lines;
  }

  /** Resolves once the entry is on the disk. @throws DitrunError ERR_FILE_WRITE where it cannot be written; it is then not there. */
  append(entry: Entry): Promise<void> {
    const line = `${JSON.stringify(entry)}\n`;
    return this.#enqueue({ line, work: async () => undefined });
  }

  /** Writes the file anew. @param entries what shall be there, asked for when all appends before are done. */
  rewrite(entries: () => Iterable<Entry>): Promise<void> {
    return this.#enqueue({ work: () => this.#rewrite(entries) });
  }

  async close(): Promise<void> {
    await this.#enqueue({ work: () => this.file.close() });
  }

  #enqueue(job: Pick<Waiting, "work" | "line">): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ...job, resolve, reject });
      if (!this.#busy) void this.#work();
    });
  }

  async #work(): Promise<void> {
    this.#busy = true;
    while (this.#waiting.length > 0) {
      const other = this.#waiting.findIndex(({ line }) => line === undefined);
      const batch = this.#waiting.splice(0, other === -1 ? this.#waiting.length : Math.max(1, other));
      try {
        const lines = batch.flatMap(({ line }) => line ?? []);
        if (lines.length > 0) await this.#write(lines);
        else await batch[0]?.work();
        for (const { resolve } of batch) resolve();
      } catch (error) {
        const failure = new DitrunError("ERR_FILE_WRITE", `${this.path} cannot be written: ${fileFailure(error)}.`, {
          cause: error,
        });
        for (const { reject } of batch) reject(failure);
      }
    }
    this.#busy = false;
  }

  async #write(lines: readonly string[]): Promise<void> {
    if (this.#torn) await this.file.truncate(this.size);
    this.#torn = true;
    const bytes = Buffer.from(lines.join(""));
    await this.file.appendFile(bytes);
    await this.file.datasync();
    this.#torn = false;
    this.size += bytes.byteLength;
    this.#lines += lines.length;
  }

  async #rewrite(entries: () => Iterable<Entry>): Promise<void> {
    const { name, file } = await openTemporary(this.path);
    try {
      const lines = [...entries()].map((entry) => `${JSON.stringify(entry)}\n`);
      const bytes = Buffer.from(lines.join(""));
      await file.appendFile(bytes);
      await file.sync();
      await file.close();
      const next = await open(name, "a+");
      await rename(name, this.path);
      await syncFolder(this.path);
      const before = this.file;
      this.file = next;
      this.size = bytes.byteLength;
      this.#torn = false;
      this.#lines = lines.length;
      await before.close();
    } catch (error) {
      await file.close().catch(() => undefined);
      await rm(name, { force: true });
      throw error;
    }
  }
}

/** The whole lines of a journal, and their bytes. What is damaged at the end was being written when the machine stopped. */
function readLines<Entry>(
  path: string,
  content: Buffer,
  schema: z.ZodType<Entry>,
): { entries: Entry[]; bytes: number } {
  const entries: Entry[] = [];
  let damaged: number | undefined;
  let bytes = 0;
  let number = 0;
  for (let start = 0, end = content.indexOf(10); end !== -1; start = end + 1, end = content.indexOf(10, start)) {
    number += 1;
    const line = parseLine(content.toString("utf8", start, end));
    if (line === undefined) {
      damaged ??= number;
      continue;
    }
    const entry = schema.safeParse(line);
    if (!entry.success) {
      // Whole JSON was not cut off: to drop it would lose what a newer ditrun has promised.
      throw new DitrunError(
        "ERR_JSON",
        `Line ${number} of ${path} is not of this ditrun: take the version that wrote it, or another --data-dir.`,
      );
    }
    if (damaged !== undefined) {
      throw new DitrunError(
        "ERR_JSON",
        `Line ${damaged} of ${path} is damaged, and lines after it are not: remove that line, or take another --data-dir.`,
      );
    }
    entries.push(entry.data);
    bytes = end + 1;
  }
  if (damaged !== undefined && entries.length === 0) {
    throw new DitrunError("ERR_JSON", `${path} is no journal of ditrun: take another --data-dir.`);
  }
  return { entries, bytes };
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** A name is on the disk once its folder is. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(path), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
