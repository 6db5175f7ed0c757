import { DitrunError } from "../../../../failure.js";
import type { TensorFile } from "../../../../formats/tensor-file.js";
import type { LatentSize } from "../../../../models/schema.js";
import { requireVae21 } from "../../../../models/wan/tensors/other-facts.js";
import { type VaeDtype, vaeDtype } from "../../../../plan/schema.js";
import type { Seed } from "../../../../protocol/seed.js";
import type { Context } from "../../../comm/context.js";
import type { HaloExchange } from "../../../comm/halo.js";
import { cast } from "../../../ops/elementwise.js";
import { partOf, type Tensor, tensor } from "../../../runtime/tensor.js";
import { CheckpointWeights } from "../../../weights/checkpoint.js";
import type { KeptWeights } from "../../../weights/kept.js";
import { RandomWeights, type WeightSource } from "../../../weights/source.js";
import { VaeDecoder } from "./decoder.js";
import { Decoding, type PixelDtype } from "./decoding.js";
import { VaeEncoder } from "./encoder.js";
import { LatentColours } from "./latent-colours.js";
import { meanColours, probeLatents } from "./probe.js";
import { LATENT_CHANNELS, normalise, PIXEL_CHANNELS, SPATIAL_FACTOR, TEMPORAL_FACTOR } from "./shape.js";

/** Frames of a video that are done, [frames, height, width, 3]. */
export interface VideoChunk<Pixels extends Float32Array | Uint8Array = Float32Array> {
  readonly firstFrame: number;
  readonly frames: number;
  readonly height: number;
  readonly width: number;
  readonly pixels: Pixels;
}

/** Frames of the video that `latentFrames` latent frames stand for. */
export function videoFrames(latentFrames: number): number {
  return 1 + TEMPORAL_FACTOR * (latentFrames - 1);
}

/** How a decode goes along with those of other ranks. */
export interface DecodeOptions {
  /** Awaited before each latent frame but the first is queued: where it throws, the decode ends. */
  readonly before?: () => Promise<void>;
  /** Told of values that are not finite; the decode then goes on to its end with the other ranks, and yields nothing more. By default it throws. */
  readonly fault?: (error: DitrunError) => Promise<void>;
}

async function refuse(error: DitrunError, { fault }: DecodeOptions): Promise<void> {
  if (!fault) throw error;
  await fault(error);
}

/** Of the fit of colours: decodes at most, and latent pixels that are enough. */
const MOST_ROUNDS = 16;
const ENOUGH_PIXELS = 1024;

/** Which halves of the VAE are wanted, and where their weights are kept from one instance to the next. */
interface Wanted {
  readonly decoder?: boolean;
  readonly encoder?: boolean;
  readonly kept?: KeptWeights;
}

/** Wan 2.1's video autoencoder. Decoding is split over all ranks of the world by rows, exactly; encoding runs on one rank. */
export class WanVae {
  #decoding: Decoding | undefined;
  #colours: Promise<LatentColours | undefined> | undefined;
  #encoding: { readonly size: LatentSize; readonly pixels: Tensor; readonly mean: Tensor } | undefined;

  private constructor(
    private readonly context: Context,
    private readonly halo: HaloExchange,
    private readonly decoder: VaeDecoder | undefined,
    private readonly encoder: VaeEncoder | undefined,
  ) {}

  /**
   * Loads the halves that are wanted from tensors with the names of the published code; the file stays open.
   * @throws DitrunError when the file is no VAE or its tensors do not fit.
   */
  static async load(context: Context, file: TensorFile, wanted: Wanted) {
    const { width } = requireVae21(file);
    return WanVae.#load(context, new CheckpointWeights(context.device, file), width, wanted);
  }

  /** Random weights: the same on every rank. */
  static random(context: Context, seed: Seed, wanted: Wanted, width = 96) {
    return WanVae.#load(context, new RandomWeights(context.device, seed), width, wanted);
  }

  static async #load(context: Context, source: WeightSource, width: number, wanted: Wanted): Promise<WanVae> {
    const loader = { context, source, dtype: vaeDtype(context.plan), kept: wanted.kept };
    const decoder = wanted.decoder ? await VaeDecoder.load(loader, width) : undefined;
    const encoder = wanted.encoder ? await VaeEncoder.load(loader, width) : undefined;
    return new WanVae(context, context.world.halo(), decoder, encoder);
  }

  /** Part of the body of Context.prepare: what a decode of latents of this size to such pixels needs. Every rank calls it. */
  measureDecode(size: LatentSize, pixels: PixelDtype): void {
    if (!this.decoder) throw new Error("The VAE was loaded without its decoder.");
    this.#decoding = new Decoding(this.context, this.decoder, this.halo, size, pixels);
  }

  /** Once memory is allocated: the first decode will take no longer than others. Every rank calls it. */
  async warmUp(): Promise<void> {
    await this.#decoding?.warmUp();
  }

  /**
   * latent float32 [16, frames, height, width] on the device, normalised as the transformer gives it, the same on every rank.
   * Every rank runs the generator to its end; on rank 0 it yields the video's frames, clamped to [-1, 1] unless told otherwise,
   * as they are done, while the next ones are computed; elsewhere it yields nothing.
   * @throws DitrunError when the latent does not have the size that was measured, or at the first frames with a value that is not finite.
   */
  async *decode(latent: Tensor, options: DecodeOptions & { clamp?: boolean } = {}): AsyncGenerator<VideoChunk> {
    const limit = (options.clamp ?? true) ? 1 : Number.POSITIVE_INFINITY;
    let failed = false;
    for await (const { raw, ...chunk } of this.#chunks(latent, "fp32", options)) {
      const pixels = new Float32Array(raw.buffer, raw.byteOffset, raw.byteLength / 4);
      if (failed) continue;
      for (let i = 0; i < pixels.length; i++) {
        const value = pixels[i] ?? Number.NaN;
        if (!Number.isFinite(value)) {
          const dtype = vaeDtype(this.context.plan);
          await refuse(notFinite("Decoding", chunk.firstFrame, latent.shape[1] ?? 0, dtype), options);
          failed = true;
          break;
        }
        pixels[i] = Math.min(limit, Math.max(-limit, value));
      }
      if (!failed) yield { ...chunk, pixels };
    }
  }

  /**
   * decode to pixels of 8 bits, which the device makes: a quarter of the bytes to fetch. Each rank throws for its own rows where a
   * pixel is not finite.
   */
  async *decodeToBytes(latent: Tensor, options: DecodeOptions = {}): AsyncGenerator<VideoChunk<Uint8Array>> {
    for await (const { raw, ...chunk } of this.#chunks(latent, "u8", options)) yield { ...chunk, pixels: raw };
  }

  /** On rank 0, the bytes of the frames of one latent frame after the other. */
  async *#chunks(latent: Tensor, pixels: PixelDtype, options: DecodeOptions) {
    const { device, world } = this.context;
    const decoding = this.#decoding;
    const [, frames = 0, height = 0, width = 0] = latent.shape;
    const size = { frames, height, width };
    if (!decoding || decoding.pixels !== pixels || !sameSize(decoding.size, size)) {
      throw new DitrunError(
        "ERR_INTERNAL",
        `The VAE was not made ready to decode latents of ${sizeText(size)} to ${pixels}.`,
      );
    }
    await decoding.begin(latent);
    let ready = decoding.queue(0);
    let failed = false;
    for (let frame = 0; frame < frames; frame++) {
      const mark = ready;
      // The next chunk is queued before this one is waited for, so that the device never idles.
      if (frame + 1 < frames) {
        await options.before?.();
        ready = decoding.queue(frame + 1);
      }
      device.waitFor("copy", mark);
      const output = decoding.output(frame);
      const raw = world.rank === 0 ? await device.download(output, "copy") : undefined;
      const [bad] = await device.download(decoding.nonfinite(frame), "copy");
      const firstFrame = frame === 0 ? 0 : videoFrames(frame);
      if (bad && !failed) {
        await refuse(notFinite("Decoding", firstFrame, frames, vaeDtype(this.context.plan)), options);
        failed = true;
      }
      if (!raw || failed) continue;
      const [count = 0, lines = 0, columns = 0] = output.shape;
      yield { firstFrame, frames: count, height: lines, width: columns, raw };
    }
  }

  /**
   * What turns latents into pictures without decoding them, fitted to what this decoder makes of noise: a decode of two frames, the
   * first time that it is asked for. Every rank calls it, between two videos. @returns undefined but on rank 0.
   */
  async colours(): Promise<LatentColours | undefined> {
    this.#colours ??= this.#fitColours();
    return this.#colours;
  }

  async #fitColours(): Promise<LatentColours | undefined> {
    const decoding = this.#decoding;
    if (!decoding) throw new Error("The VAE was not made ready to decode.");
    const size = { ...decoding.size, frames: Math.min(2, decoding.size.frames) };
    const values = size.height * size.width * LATENT_CHANNELS;
    const colours = new LatentColours();
    // A small picture has few pixels to learn from.
    const rounds = Math.ceil(ENOUGH_PIXELS / (size.frames * size.height * size.width));
    for (let round = 0; round < Math.min(rounds, MOST_ROUNDS); round++) {
      const latents = probeLatents(size, BigInt(round));
      const pictures = await decoding.tryOut(latents, size.frames);
      pictures.forEach((picture, frame) => {
        colours.add(latents.subarray(frame * values, (frame + 1) * values), meanColours(picture, size));
      });
    }
    return this.context.world.rank === 0 ? colours : undefined;
  }

  /** Frees what decoding keeps outside of tensors; the device must be idle. */
  close(): void {
    this.#decoding?.close();
  }

  /** Part of the body of Context.prepare: what an encoding to latents of this size needs. */
  measureEncode(size: LatentSize): void {
    const { device } = this.context;
    const { frames, height, width } = size;
    const frame = [SPATIAL_FACTOR * height, SPATIAL_FACTOR * width, PIXEL_CHANNELS];
    this.#encoding = {
      size,
      pixels: device.allocatePersistent("fp32", [videoFrames(frames), ...frame]),
      mean: device.allocatePersistent("fp32", [frames, height, width, LATENT_CHANNELS]),
    };
    for (let index = 0; index < Math.min(2, frames); index++) this.#queueEncode(index);
  }

  /**
   * video float32 [3, 4n + 1 frames, height, width] in [-1, 1] -> the normalised mean of its latent, [16, n + 1, height / 8, width / 8].
   * @throws DitrunError when the video does not have the size that was measured, or when a value of the latent is not finite.
   */
  async encode(video: Float32Array, size: LatentSize): Promise<Float32Array> {
    const { device } = this.context;
    const encoding = this.#encoding;
    if (!encoding || !this.encoder || !sameSize(encoding.size, size)) {
      throw new DitrunError("ERR_INTERNAL", `The VAE was not made ready to encode to latents of ${sizeText(size)}.`);
    }
    const { frames, height, width } = size;
    const videoSize = { frames: videoFrames(frames), height: SPATIAL_FACTOR * height, width: SPATIAL_FACTOR * width };
    requireElements(video, PIXEL_CHANNELS, videoSize);
    await device.upload(encoding.pixels, bytesOf(channelsLast(video, PIXEL_CHANNELS)));
    this.encoder.reset();
    for (let index = 0; index < frames; index++) this.#queueEncode(index);
    const bytes = await device.download(encoding.mean);
    const mean = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    const bad = mean.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) {
      const frame = Math.floor(bad / (height * width * LATENT_CHANNELS));
      throw notFinite("Encoding", frame === 0 ? 0 : videoFrames(frame), frames, vaeDtype(this.context.plan));
    }
    const pixels = frames * height * width;
    return Float32Array.from({ length: mean.length }, (_, index) => {
      const channel = Math.floor(index / pixels);
      return normalise(mean[(index % pixels) * LATENT_CHANNELS + channel] ?? Number.NaN, channel);
    });
  }

  #queueEncode(index: number): void {
    const { context, encoder } = this;
    const { device } = context;
    const encoding = this.#encoding;
    if (!encoder || !encoding) throw new Error("The VAE was loaded without its encoder, or was not measured.");
    const { pixels, mean } = encoding;
    const first = index === 0 ? 0 : videoFrames(index);
    const shape = [index === 0 ? 1 : TEMPORAL_FACTOR, ...pixels.shape.slice(1)];
    device.arena.scope(() => {
      const input = device.allocate(encoder.dtype, shape);
      cast(device, input, tensor(partOf(pixels, first).address, "fp32", shape));
      cast(device, partOf(mean, index), encoder.forward(input, index === 0));
    });
  }
}

/** @param firstFrame of the video's frames that one latent frame of `latentFrames` stands for. */
/** Named with the way out: what fp16 cannot hold bf16 can, and float32 is the most exact. */
function notFinite(
  stage: "Decoding" | "Encoding",
  firstFrame: number,
  latentFrames: number,
  dtype: VaeDtype,
): DitrunError {
  const latentFrame = 1 + Math.ceil(firstFrame / TEMPORAL_FACTOR);
  const last = firstFrame === 0 ? 1 : firstFrame + TEMPORAL_FACTOR;
  const which = last === 1 ? "frame 1" : `frames ${firstFrame + 1} to ${last}`;
  const ways = {
    fp16: "check the weights of the VAE, or try --vae-dtype bf16 or fp32, since its fp16 may be too narrow",
    bf16: "check the weights of the VAE, or try --vae-dtype fp32",
    fp32: "check the weights of the VAE",
  };
  return new DitrunError(
    "ERR_NOT_FINITE",
    `${stage} gave values that are not finite, first in ${which} of ${videoFrames(latentFrames)} (latent frame ${latentFrame} of ${latentFrames}): ${ways[dtype]}.`,
  );
}

const sameSize = (a: LatentSize, b: LatentSize) =>
  a.frames === b.frames && a.height === b.height && a.width === b.width;
const sizeText = ({ frames, height, width }: LatentSize) => `${frames} × ${height} × ${width}`;
const bytesOf = (x: Float32Array) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);

function requireElements(x: Float32Array, channels: number, { frames, height, width }: LatentSize): void {
  if (x.length === channels * frames * height * width) return;
  throw new DitrunError(
    "ERR_TENSOR_SHAPE",
    `A tensor [${channels}, ${frames}, ${height}, ${width}] has ${channels * frames * height * width} elements, but ${x.length} were given.`,
  );
}

/** [channels, …] -> […, channels]. */
function channelsLast(x: Float32Array, channels: number): Float32Array {
  const pixels = x.length / channels;
  const out = new Float32Array(x.length);
  for (let channel = 0; channel < channels; channel++) {
    for (let pixel = 0; pixel < pixels; pixel++)
      out[pixel * channels + channel] = x[channel * pixels + pixel] ?? Number.NaN;
  }
  return out;
}
