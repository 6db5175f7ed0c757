import type { Context } from "../comm/context.js";
import { Arena } from "../runtime/arena.js";
import { Region } from "../runtime/region.js";
import { type Store, scoped } from "../store.js";

/**
 * Work of one shape, precision and plan: its buffers, its peer memory and what the body made with them. The addresses stay, so
 * its graphs stay valid until it is freed, all of it at once.
 */
export class Program<T> {
  /** What was made; undefined until `make` has ended. */
  #value: T | undefined;

  private constructor(
    readonly context: Context,
    private readonly arena: Arena,
    private readonly region: Region,
  ) {}

  /** @param scope names this program among all of the worker's. @param base a context of the same plan. */
  static async open<T>(base: Context, store: Store, scope: string): Promise<Program<T>> {
    return new Program<T>(await base.another(scoped(store, scope)), new Arena(), new Region());
  }

  /** Bytes of device memory that it holds. */
  get bytes(): number {
    return this.region.bytes;
  }

  get value(): T {
    if (this.#value === undefined) throw new Error("The program was not made yet.");
    return this.#value;
  }

  /** Goes through the body without memory: @returns the bytes that making it will take. */
  async rehearse(body: (context: Context) => Promise<unknown>): Promise<number> {
    const { device } = this.context;
    return this.enter(async () => {
      const persistent = await device.rehearse(async () => {
        await body(this.context);
      });
      return persistent + this.context.measuredBytes;
    });
  }

  /** Takes the memory that the rehearsal has found, and runs the body with it. */
  async make(body: (context: Context) => Promise<T>): Promise<T> {
    const value = await this.enter(async () => {
      await this.context.allocate();
      return body(this.context);
    });
    this.#value = value;
    return value;
  }

  /** Runs the body with the program's memory at hand. */
  async enter<R>(body: () => Promise<R>): Promise<R> {
    const { device } = this.context;
    const before = device.arena;
    device.arena = this.arena;
    try {
      return await device.within(this.region, body);
    } finally {
      device.arena = before;
    }
  }

  /** Frees all of it. Every rank calls it, with the device idle and what the body made closed. */
  async free(): Promise<void> {
    await this.context.close();
    this.context.device.free(this.region);
  }
}
