import { availableParallelism } from "node:os";
import { type DecodeArgs, type Handle, type Output, READER_SLOTS } from "./abi.js";
import type { KernelCalls } from "./kernels.js";

/** Small enough for a processor's cache, large enough that what is done once a piece costs little. */
const PIECE_BYTES = 4 * 2 ** 20;
/** More do not read faster from the page cache, and fewer leave disks idle. */
const MOST_THREADS = 16;
const LEAST_THREADS = 2;

/** Where a file could not be read: at this byte, for this errno, or because it ended there (0). */
export interface ReadFailure {
  readonly offset: number;
  readonly errno: number;
}

/** Rows of an open file that are to be decoded. */
export interface FileRows {
  /** The file's descriptor, open until the reader has settled. */
  readonly file: number;
  /** Of the first row, in bytes. */
  readonly offset: number;
  readonly args: DecodeArgs;
  /** One number that all rows are multiplied with, or one for each; none if empty. */
  readonly scales: readonly number[];
  /** What is thrown where the file cannot be read. */
  readonly failed: (at: ReadFailure) => Error;
}

interface Sequel {
  readonly ticket: number;
  readonly body: () => void | Promise<void>;
}

/**
 * Reads files to the device on threads of the kernel module. Who gives it rows goes on at once, and leaves with `after` what is to be
 * done with them. Its first rows open it; it then keeps its slots until it is closed.
 */
export class Reader {
  readonly #threads: number;
  #handle: Handle | undefined;
  #wanted = false;
  /** Tickets of the job given last, and of the last that is known to be done with all before it. */
  #given = 0;
  #done = 0;
  #sequels: Sequel[] = [];
  #running: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  readonly #failed = new Map<number, FileRows["failed"]>();

  /** @param stream rows are written after what it holds, and seen by what it is given next. @param workers that share this host's cores. */
  constructor(
    private readonly kernels: KernelCalls,
    private readonly stream: Handle,
    workers: number,
    /** Told that what was given to `after` will not be run. */
    private readonly abandon: (error: unknown) => void,
  ) {
    const share = Math.floor(availableParallelism() / workers);
    this.#threads = Math.min(MOST_THREADS, Math.max(LEAST_THREADS, share));
  }

  /** Device memory that it takes, if it is ever used. The CPU module's is the host's. */
  get bytes(): number {
    return this.#wanted && this.kernels.module === "cuda" ? this.#threads * READER_SLOTS * PIECE_BYTES : 0;
  }

  /** Something will be read, if only after a rehearsal. */
  want(): void {
    this.#wanted = true;
  }

  /** Begins to read and decode rows. @throws what ended the reader before. */
  submit({ file, offset, args, scales, failed }: FileRows): void {
    this.want();
    if (this.#failure) throw this.#failure.error;
    this.#handle ??= this.kernels.create("readerOpen", this.#threads, PIECE_BYTES);
    const rows = [file, offset, args, scales, scales.length] as const;
    this.#given = this.kernels.create("readerSubmit", this.#handle, ...rows, this.stream);
    this.#failed.set(this.#given, failed);
  }

  /**
   * Runs the body once all rows given so far are there for what it queues on the stream: at once if they are, and it is awaited
   * then; else later, in order, and `settle` says how it went. It must not wait for the reader.
   */
  async after(body: () => void | Promise<void>): Promise<void> {
    if (this.#failure) throw this.#failure.error;
    if (this.#sequels.length === 0 && !this.#running && this.#done === this.#given) return body();
    this.#sequels.push({ ticket: this.#given, body });
    this.#running ??= this.#run();
  }

  /** Waits for all that was begun, and for what follows it. @throws what failed first. */
  async settle(): Promise<void> {
    if (this.#done < this.#given && !this.#failure) await this.after(() => {});
    await this.#running;
    if (!this.#failure) return;
    const { error } = this.#failure;
    await this.close();
    throw error;
  }

  /** Gives up what was not begun. Later rows open it again. */
  async close(): Promise<void> {
    const handle = this.#handle;
    [this.#handle, this.#failure] = [undefined, undefined];
    if (this.#sequels.length > 0) this.abandon(new Error("The reader was closed."));
    if (handle !== undefined) await this.kernels.callBlocking("readerClose", handle);
    await this.#running;
    [this.#given, this.#done, this.#sequels, this.#failure] = [0, 0, [], undefined];
    this.#failed.clear();
  }

  /** As close, where nothing is under way. */
  release(): void {
    if (this.#handle !== undefined) this.kernels.call("readerClose", this.#handle);
    this.#handle = undefined;
  }

  async #run(): Promise<void> {
    try {
      for (let next = this.#sequels[0]; next; next = this.#sequels[0]) {
        if (next.ticket > this.#done) await this.#waitFor(next.ticket);
        this.#sequels.shift();
        await next.body();
      }
    } catch (error) {
      this.#failure = { error };
      this.#sequels = [];
      this.abandon(error);
    } finally {
      this.#running = undefined;
    }
  }

  async #waitFor(ticket: number): Promise<void> {
    const handle = this.#handle;
    if (handle === undefined) throw new Error("A reader was closed while rows were awaited.");
    try {
      const done = await this.kernels.createBlocking("readerWait", handle, ticket, this.stream);
      for (let past = this.#done + 1; past <= done; past++) this.#failed.delete(past);
      this.#done = done;
    } catch (error) {
      throw this.#tell(handle) ?? error;
    }
  }

  /** The failure in the words of whose rows it met. */
  #tell(handle: Handle): Error | undefined {
    const cells: [Output, Output, Output] = [[null], [null], [null]];
    try {
      this.kernels.call("readerFailure", handle, ...cells);
    } catch {
      return undefined; // It failed at something else, and the module has told of that.
    }
    const [ticket = 0, offset = 0, errno = 0] = cells.map(([cell]) => Number(cell));
    return this.#failed.get(ticket)?.({ offset, errno });
  }
}
