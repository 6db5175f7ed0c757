import type { LatentSize } from "../../../../models/schema.js";
import type { Context } from "../../../comm/context.js";
import type { HaloExchange } from "../../../comm/halo.js";
import { rangeOf } from "../../../layers/split.js";
import { copy, copyRows, fillZero, transpose } from "../../../ops/copy.js";
import { addGated, addVector, cast, toBytes } from "../../../ops/elementwise.js";
import type { Handle } from "../../../runtime/abi.js";
import { Replays } from "../../../runtime/replays.js";
import { partOf, rowsOf, type Tensor, tensor, tensorBytes } from "../../../runtime/tensor.js";
import type { VaeDecoder } from "./decoder.js";
import { bytesOfPixels } from "./pixels.js";
import { LATENT_CHANNELS, latentMean, latentStd, PIXEL_CHANNELS, SPATIAL_FACTOR, TEMPORAL_FACTOR } from "./shape.js";
import { Strip } from "./strip.js";

/** fp32: as the decoder gives them, not clamped. u8: 0 … 255. */
export type PixelDtype = "fp32" | "u8";

/**
 * What is queued on the device to decode latents of one size, frame after frame, rows divided over all ranks of the world. From
 * its second time on a frame's work is a graph (a video's first frame has one of its own): some hundred kernels, with several ranks
 * short ones. Made in a measuring pass, on every rank.
 */
export class Decoding {
  readonly #strip: Strip;
  /** [frames · height · width, 16]: the latent as the decoder takes it, channels last. */
  readonly #latent: Tensor;
  /** [2, 16]: std - 1 and mean of each channel. */
  readonly #statistics: Tensor;
  /** This rank's rows of the frame at hand, [1, rows, width, 16]. */
  readonly #input: Tensor;
  /** The pixels of the frame at hand: room for four frames of the video; on rank 0 only. */
  readonly #pixels: Tensor;
  /** Copies of it, which take turns: one is fetched while the next frame is computed. */
  readonly #outputs: readonly [Tensor, Tensor];
  /** i32 [3]: 1 once a pixel of this rank's rows is not finite, since the video began; then that as it was after each of the two outputs. */
  readonly #nonfinite: Tensor;
  #statisticsUploaded = false;
  readonly #replays: Replays;

  constructor(
    private readonly context: Context,
    private readonly decoder: VaeDecoder,
    halo: HaloExchange,
    readonly size: LatentSize,
    readonly pixels: PixelDtype,
  ) {
    const { device, world, plan } = context;
    const { frames, height, width } = size;
    this.#replays = new Replays(device, plan.graph);
    this.#strip = new Strip(height, world, halo);
    this.#latent = device.allocatePersistent("fp32", [frames * height * width, LATENT_CHANNELS]);
    this.#statistics = device.allocatePersistent("fp32", [2, LATENT_CHANNELS]);
    const rows = Math.max(1, this.#strip.own.count);
    this.#input = device.allocatePersistent(decoder.dtype, [1, rows, width, LATENT_CHANNELS]);
    const frameValues = SPATIAL_FACTOR ** 2 * height * width * PIXEL_CHANNELS;
    const room = () => device.allocatePersistent(pixels, [world.rank === 0 ? TEMPORAL_FACTOR * frameValues : 1]);
    this.#pixels = room();
    this.#outputs = [room(), room()];
    this.#nonfinite = device.allocatePersistent("i32", [3]);
    for (let frame = 0; frame < Math.min(2, frames); frame++) this.#decode(frame);
  }

  /**
   * Goes through the first frames of a video of zeros twice, so that what is done only once is done: kernels are loaded, algorithms of
   * products chosen, graphs captured. Every rank calls it.
   */
  async warmUp(): Promise<void> {
    const { device } = this.context;
    await this.#uploadStatistics();
    fillZero(device, this.#latent);
    for (let time = 0; time < 2; time++) {
      for (let frame = 0; frame < Math.min(2, this.size.frames); frame++) this.queue(frame);
    }
    await device.synchronize();
  }

  /** A new video: latent float32 [16, frames, height, width] on the device, the same on every rank. */
  async begin(latent: Tensor): Promise<void> {
    const { device } = this.context;
    await this.#uploadStatistics();
    const [pixels = 0] = this.#latent.shape;
    transpose(device, this.#latent, tensor(latent.address, "fp32", [LATENT_CHANNELS, pixels]));
    this.#beginWithLatent();
  }

  /**
   * Decodes the first frames of a video by themselves, between two videos. Every rank calls it, with the same latents.
   * @param latents [frames, height · width, 16], normalised.
   * @returns on rank 0, of each latent frame the last picture, [8 · height, 8 · width, 3], 0 … 255.
   */
  async tryOut(latents: Float32Array, frames: number): Promise<Uint8Array[]> {
    const { device, world } = this.context;
    const { height, width } = this.size;
    await this.#uploadStatistics();
    fillZero(device, this.#latent);
    const rows = rowsOf(this.#latent, 0, frames * height * width);
    await device.upload(rows, new Uint8Array(latents.buffer, latents.byteOffset, latents.byteLength));
    this.#beginWithLatent();
    const pictures: Uint8Array[] = [];
    for (let frame = 0; frame < frames; frame++) {
      this.queue(frame);
      const output = this.output(frame);
      const raw = world.rank === 0 ? await device.download(partOf(output, (output.shape[0] ?? 1) - 1)) : undefined;
      if (raw) pictures.push(this.pixels === "u8" ? raw : bytesOfPixels(new Float32Array(raw.buffer)));
    }
    await device.synchronize();
    return pictures;
  }

  /** What is to be decoded lies in #latent, normalised. */
  #beginWithLatent(): void {
    const { device } = this.context;
    const [gain, mean] = [partOf(this.#statistics, 0), partOf(this.#statistics, 1)];
    addGated(device, this.#latent, this.#latent, this.#latent, gain); // x + x · (std - 1)
    addVector(device, this.#latent, this.#latent, mean);
    fillZero(device, this.#nonfinite);
    this.decoder.reset();
  }

  /** Queues one latent frame; the mark is passed when its pixels lie in the frame's output. */
  queue(frame: number): Handle {
    const { device, world } = this.context;
    const { start, count } = this.#strip.own;
    const { height, width } = this.size;
    if (count > 0) cast(device, this.#input, rowsOf(this.#latent, (frame * height + start) * width, count * width));
    // A video's first frame is unlike the others.
    this.#replays.of(frame === 0 ? "first" : "later", () => this.#decode(frame))();
    if (world.rank === 0) {
      const output = this.output(frame);
      copy(device, output, this.#pixels, tensorBytes(output.dtype, output.shape));
    }
    copy(device, this.nonfinite(frame), partOf(this.#nonfinite, 0), 4);
    return device.mark("compute");
  }

  /** On rank 0: where the pixels of a frame that has been queued will lie, [frames, 8 · height, 8 · width, 3]. */
  output(frame: number): Tensor {
    return this.#shaped(this.#outputs[frame % 2 === 0 ? 0 : 1], frame);
  }

  /**
   * i32: where, for a frame that has been queued, 1 will lie if it or one before it has pixels among this rank's rows that are not
   * finite, else 0. Of pixels of 8 bits only: others show it themselves.
   */
  nonfinite(frame: number): Tensor {
    return partOf(this.#nonfinite, 1 + (frame % 2));
  }

  #shaped({ address, dtype }: Tensor, frame: number): Tensor {
    const { height, width } = this.size;
    const frames = frame === 0 ? 1 : TEMPORAL_FACTOR;
    return tensor(address, dtype, [frames, SPATIAL_FACTOR * height, SPATIAL_FACTOR * width, PIXEL_CHANNELS]);
  }

  /** Frees the graphs; the device must have done what is queued. */
  close(): void {
    this.#replays.close();
  }

  async #uploadStatistics(): Promise<void> {
    if (this.#statisticsUploaded) return;
    const statistics = Float32Array.of(...latentStd.map((std) => std - 1), ...latentMean);
    await this.context.device.upload(this.#statistics, new Uint8Array(statistics.buffer));
    this.#statisticsUploaded = true;
  }

  /** #input to #pixels. */
  #decode(frame: number): void {
    const { device, world } = this.context;
    const { rowsOfRank, own } = this.#strip;
    const { width } = this.size;
    const output = this.#shaped(this.#pixels, frame);
    const columns = SPATIAL_FACTOR * width * PIXEL_CHANNELS;
    const lines = rowsOfRank.map((rows) => rows * SPATIAL_FACTOR * (output.shape[0] ?? 0));
    device.arena.scope(() => {
      const part = () => world.gatherPart(lines, columns, this.pixels);
      let mine: Tensor;
      if (own.count === 0) {
        this.decoder.takePart(this.#strip, width);
        mine = part(); // such a rank is never rank 0
      } else {
        const decoded = this.decoder.forward(this.#input, this.#strip, frame === 0);
        mine = world.size === 1 ? output : part();
        this.#convert(mine, decoded);
      }
      if (world.size > 1) this.#gather(mine, lines, output);
    });
  }

  /** Pixels to the dtype that is wanted. */
  #convert(out: Tensor, decoded: Tensor): void {
    const { device } = this.context;
    if (this.pixels === "fp32") cast(device, out, decoded);
    else toBytes(device, out, decoded, partOf(this.#nonfinite, 0));
  }

  /** Each rank sends all frames of its rows, lines [of rank] of pixels; rank 0 puts them in their places. */
  #gather(mine: Tensor, lines: readonly number[], output: Tensor): void {
    const { device, world } = this.context;
    const [frames = 0, height = 0] = output.shape;
    const columns = mine.shape.at(-1) ?? 0;
    const gathered = device.allocate(this.pixels, [lines.reduce((sum, count) => sum + count, 0), columns]);
    world.allGather(mine, lines, gathered);
    if (world.rank !== 0) return;
    const lineBytes = tensorBytes(this.pixels, [columns]);
    lines.forEach((count, rank) => {
      const { start } = rangeOf(lines, rank);
      if (count === 0) return;
      const to = output.address + (start / frames) * lineBytes;
      const from = gathered.address + start * lineBytes;
      const run = (count / frames) * lineBytes;
      const there = { address: to, pitch: height * lineBytes };
      copyRows(device, there, { address: from, pitch: run }, { rows: frames, rowBytes: run, phase: "communication" });
    });
  }
}
