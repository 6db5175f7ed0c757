/** Told of bytes of weights that are on the device, of all that a rehearsal has found, and of the milliseconds since the first. */
export type LoadListener = (loaded: {
  what: string;
  bytes: number;
  total: number;
  milliseconds: number;
}) => Promise<void>;

/** No more often than this is told. */
const TELL_MILLISECONDS = 200;

/** How far the loading of weights is: a rehearsal says how much there is, and loading how much has come. */
export class LoadMeter {
  #listener: LoadListener | undefined;
  #what = "";
  #total = 0;
  #bytes = 0;
  #milliseconds = 0;
  #started: number | undefined;
  #told = 0;
  #all = { milliseconds: 0, bytes: 0 };

  /** A request begins, which may find everything loaded. */
  begin(listener: LoadListener): void {
    this.#listener = listener;
    this.#all = { milliseconds: 0, bytes: 0 };
  }

  /** Of the request: loading alone, and what it put on the device. */
  get loaded(): { readonly milliseconds: number; readonly bytes: number } {
    return this.#all;
  }

  /** Something is about to be rehearsed, and then loaded. */
  next(what: string): void {
    this.#what = what;
    this.#total = 0;
    this.#bytes = 0;
    this.#milliseconds = 0;
  }

  /** A rehearsal found that so much more will come. */
  expect(bytes: number): void {
    this.#total += bytes;
  }

  /** Runs a part of loading. */
  async during<T>(body: () => Promise<T>): Promise<T> {
    this.#started = performance.now();
    const before = this.#milliseconds;
    try {
      return await body();
    } finally {
      this.#milliseconds = before + this.#elapsed;
      this.#all.milliseconds += this.#elapsed;
      this.#started = undefined;
      await this.#tell();
    }
  }

  /** So much more is on the device. */
  async add(bytes: number): Promise<void> {
    this.#bytes += bytes;
    this.#all.bytes += bytes;
    if (performance.now() - this.#told >= TELL_MILLISECONDS) await this.#tell();
  }

  get #elapsed(): number {
    return this.#started === undefined ? 0 : performance.now() - this.#started;
  }

  async #tell(): Promise<void> {
    if (this.#bytes === 0) return;
    this.#told = performance.now();
    const milliseconds = this.#milliseconds + this.#elapsed;
    await this.#listener?.({ what: this.#what, bytes: this.#bytes, total: this.#total, milliseconds });
  }
}
