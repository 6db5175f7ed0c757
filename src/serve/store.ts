import { open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { makeFolder } from "../files/folder.js";
import { Journal, syncFolder } from "./journal.js";
import { Ids, isFinal, recordSchema, type VideoRecord } from "./records.js";
import type { ListRequest } from "./schemas.js";
import { idOfFile, type Variant, variants } from "./variants.js";

const entrySchema = z.union([
  z.strictObject({ put: recordSchema }),
  /** `at`: milliseconds since 1970. */
  z.strictObject({ gone: z.string(), why: z.enum(["deleted", "expired"]), at: z.int() }),
]);
type Entry = z.infer<typeof entrySchema>;

/** Ids of expired videos that are remembered, to say that they were there. */
const MOST_EXPIRED = 10_000;
/** Lines that nothing needs any more, before the journal is written anew. */
const MOST_IDLE_LINES = 1000;

/** All videos of a folder: their records, in memory and in the journal, and their files. What is in memory is on the disk. */
export class Store {
  readonly #records = new Map<string, VideoRecord>();
  readonly #byKey = new Map<string, string>();
  readonly #expired = new Map<string, number>();
  /** The last change of each video that is being changed. */
  readonly #turns = new Map<string, Promise<void>>();
  readonly #ids: Ids;

  private constructor(
    private readonly folder: string,
    private readonly journal: Journal<Entry>,
    entries: readonly Entry[],
  ) {
    for (const entry of entries) this.#apply(entry);
    // A record may have been written again after a younger one.
    const sorted = [...this.#records].sort(([a], [b]) => (a < b ? -1 : 1));
    this.#records.clear();
    for (const [id, record] of sorted) this.#records.set(id, record);
    const known = [...this.#records.keys(), ...this.#expired.keys()].sort();
    this.#ids = new Ids(known.at(-1));
  }

  /** Opens a folder, and makes it where it is not there. @throws DitrunError as Journal.open, or the file system's own error. */
  static async open(folder: string): Promise<Store> {
    makeFolder(join(folder, "videos"));
    const { journal, entries } = await Journal.open(join(folder, "journal.jsonl"), entrySchema);
    const store = new Store(folder, journal, entries);
    await store.#removeOrphans();
    // It only saves room, and needs some: on a full disk the old one will do.
    await store.#compact(0).catch(() => undefined);
    return store;
  }

  /** A file of a completed video. */
  fileOf(id: string, variant: Variant = "video"): string {
    return join(this.folder, "videos", `${id}${variants[variant].ending}`);
  }

  filesOf(id: string): Record<Variant, string> {
    const [video, thumbnail, spritesheet] = [
      this.fileOf(id),
      this.fileOf(id, "thumbnail"),
      this.fileOf(id, "spritesheet"),
    ];
    return { video, thumbnail, spritesheet };
  }

  get(id: string): VideoRecord | undefined {
    return this.#records.get(id);
  }

  /** Whether there was a video of this id whose time is over. */
  isExpired(id: string): boolean {
    return this.#expired.has(id);
  }

  /** The video that a client made under its key. */
  byKey(key: string): VideoRecord | undefined {
    const id = this.#byKey.get(key);
    return id === undefined ? undefined : this.#records.get(id);
  }

  /** The oldest first. */
  all(): VideoRecord[] {
    return [...this.#records.values()];
  }

  /** A page of the list. @returns also whether more follow. */
  list({ limit, order, after }: ListRequest): { page: VideoRecord[]; more: boolean } {
    const all = order === "asc" ? this.all() : this.all().reverse();
    // Ids are in order, so a page can follow one that was deleted meanwhile.
    const rest = after === undefined ? all : all.filter(({ id }) => (order === "asc" ? id > after : id < after));
    return { page: rest.slice(0, limit), more: rest.length > limit };
  }

  newId(now: number): string {
    return this.#ids.next(now);
  }

  /** Writes a new record. It can be seen once it is on the disk. @throws DitrunError ERR_FILE_WRITE */
  async add(record: VideoRecord): Promise<void> {
    await this.#write({ put: record });
  }

  /**
   * Changes a record, after the changes before. @param edit gets the record as it then is; undefined leaves it so.
   * @returns the record as it is afterwards, undefined where there is none. @throws DitrunError ERR_FILE_WRITE
   */
  async change(id: string, edit: (record: VideoRecord) => VideoRecord | undefined): Promise<VideoRecord | undefined> {
    return this.#inTurn(id, async () => {
      const record = this.#records.get(id);
      const next = record && edit(record);
      if (next) await this.#write({ put: next });
      return this.#records.get(id);
    });
  }

  /**
   * Removes a record, then its file; on a full disk the file first, which makes room for the journal's line.
   * @throws DitrunError ERR_FILE_WRITE where the journal cannot be written.
   */
  async remove(id: string, why: "deleted" | "expired", now: number): Promise<void> {
    await this.#inTurn(id, async () => {
      if (!this.#records.has(id)) return;
      const entry: Entry = { gone: id, why, at: now };
      const written = await this.#write(entry).then(
        () => true,
        () => false,
      );
      await this.removeFiles(id);
      if (!written) await this.#write(entry);
    });
  }

  /** Removes files that no record speaks of. */
  async removeFiles(id: string): Promise<void> {
    for (const file of Object.values(this.filesOf(id))) await rm(file, { force: true });
  }

  /** Removes what has been final for so long. @returns how many. */
  async expire(now: number, keepMs: number): Promise<number> {
    const over = this.all().filter((record) => isFinal(record) && (record.completedAt ?? 0) + keepMs <= now);
    for (const { id } of over) await this.remove(id, "expired", now);
    await this.#compact(MOST_IDLE_LINES);
    return over.length;
  }

  /** Has a video's files on the disk before its record says so. */
  async keepFiles(id: string): Promise<void> {
    for (const path of Object.values(this.filesOf(id))) {
      const file = await open(path, "r");
      try {
        await file.sync();
      } finally {
        await file.close();
      }
    }
    await syncFolder(this.fileOf(id));
  }

  async close(): Promise<void> {
    await this.journal.close();
  }

  async #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    const turn = (this.#turns.get(id) ?? Promise.resolve()).then(work);
    const over = turn.then(
      () => undefined,
      () => undefined,
    );
    this.#turns.set(id, over);
    void over.then(() => {
      if (this.#turns.get(id) === over) this.#turns.delete(id);
    });
    return turn;
  }

  async #write(entry: Entry): Promise<void> {
    await this.journal.append(entry);
    this.#apply(entry);
  }

  #apply(entry: Entry): void {
    if ("put" in entry) {
      const { id, idempotency } = entry.put;
      this.#records.set(id, entry.put);
      if (idempotency) this.#byKey.set(idempotency.key, id);
      return;
    }
    const { gone, why, at } = entry;
    const key = this.#records.get(gone)?.idempotency?.key;
    if (key !== undefined) this.#byKey.delete(key);
    this.#records.delete(gone);
    if (why === "expired") this.#expired.set(gone, at);
    for (const id of this.#expired.keys()) {
      if (this.#expired.size <= MOST_EXPIRED) break;
      this.#expired.delete(id);
    }
  }

  *#entries(): Iterable<Entry> {
    for (const [gone, at] of this.#expired) yield { gone, why: "expired", at };
    for (const put of this.#records.values()) yield { put };
  }

  async #compact(idle: number): Promise<void> {
    const needed = this.#records.size + this.#expired.size;
    if (this.journal.lines - needed > idle) await this.journal.rewrite(() => this.#entries());
  }

  /**
   * Files that no completed video has: of runs that were cut off, and of removals that were. What others keep in the folder stays: they may
   * have given the server a folder that was theirs.
   */
  async #removeOrphans(): Promise<void> {
    const folder = join(this.folder, "videos");
    for (const name of await readdir(folder)) {
      const id = idOfFile(name);
      if (id === undefined) continue;
      const files = this.#records.get(id)?.status === "completed" ? Object.values(this.filesOf(id)) : [];
      const path = join(folder, name);
      if (!files.includes(path)) await rm(path, { recursive: true, force: true });
    }
  }
}
