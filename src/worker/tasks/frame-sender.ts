import type { VideoChunk } from "../models/wan/vae/vae.js";
import type { Store } from "../store.js";

/** So many bytes of frames may wait for the launcher's video encoder before decoding waits for it too. */
const MOST_BYTES = 256 * 2 ** 20;

/** Hands frames to the launcher as [height, width, 3] of 8 bits, under the name `frame`, in order. */
export class FrameSender {
  readonly #underway: { readonly bytes: number; readonly sent: Promise<void> }[] = [];
  #bytes = 0;

  constructor(private readonly store: Pick<Store, "emit">) {}

  /** Resolves when decoding may go on. @throws DitrunError when the job has ended. */
  async send({ pixels, frames }: VideoChunk<Uint8Array>): Promise<void> {
    const length = pixels.length / frames;
    for (let frame = 0; frame < frames; frame++) {
      const bytes = pixels.subarray(frame * length, (frame + 1) * length);
      this.#underway.push({ bytes: length, sent: this.store.emit("frame", bytes) });
      this.#bytes += length;
    }
    await this.#drain(MOST_BYTES);
  }

  /** Resolves when the launcher has dealt with every frame. */
  async flush(): Promise<void> {
    await this.#drain(0);
  }

  async #drain(most: number): Promise<void> {
    while (this.#bytes > most) {
      const oldest = this.#underway.shift();
      if (!oldest) return;
      await oldest.sent;
      this.#bytes -= oldest.bytes;
    }
  }
}
