import { writeSafetensors } from "../../formats/safetensors.js";
import type { VideoChunk } from "../models/wan/vae/vae.js";

/** Collects tensors for --dump, float32, on rank 0 and only if a file was asked for. */
export class WanDump {
  readonly #tensors: Record<string, { dtype: "F32"; shape: readonly number[]; data: Uint8Array }> = {};
  readonly #file: string | undefined;

  /** @param replace false where what has the file's name by the end is left alone, and the next free number taken. */
  constructor(
    file: string | undefined,
    rank: number,
    private readonly replace = true,
  ) {
    this.#file = rank === 0 ? file : undefined;
  }

  /** @param read gives the tensor's float32 bytes; not called where nothing is collected. */
  async add(name: string, shape: readonly number[], read: () => Promise<Uint8Array>): Promise<void> {
    if (this.#file !== undefined) this.#tensors[name] = { dtype: "F32", shape, data: await read() };
  }

  /** Takes `video` [3, frames, height, width] chunk by chunk; undefined where nothing is collected. */
  video(frames: number, height: number, width: number): ((chunk: VideoChunk) => void) | undefined {
    if (this.#file === undefined) return undefined;
    const plane = frames * height * width;
    const video = new Float32Array(3 * plane);
    this.#tensors.video = { dtype: "F32", shape: [3, frames, height, width], data: new Uint8Array(video.buffer) };
    return ({ pixels, firstFrame }) => {
      const first = firstFrame * height * width;
      for (let i = 0; i < pixels.length; i++) {
        video[(i % 3) * plane + first + Math.floor(i / 3)] = pixels[i] ?? Number.NaN;
      }
    };
  }

  /** @throws DitrunError when the file cannot be written. */
  async write(): Promise<void> {
    if (this.#file === undefined) return;
    const name = await writeSafetensors(this.#file, this.#tensors, this.replace);
    if (name !== this.#file) console.error(`${this.#file} has been made meanwhile: the dump is ${name}.`);
  }
}
