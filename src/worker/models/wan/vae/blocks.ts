import type { VaeDtype } from "../../../../plan/schema.js";
import type { Context } from "../../../comm/context.js";
import { softmaxRows } from "../../../ops/attention.js";
import { copy, copyRows, transpose } from "../../../ops/copy.js";
import { gemm } from "../../../ops/gemm.js";
import { channelNorm } from "../../../ops/norm.js";
import type { Device } from "../../../runtime/device.js";
import {
  dtypeBytes,
  elements,
  matrixShape,
  partOf,
  partsOf,
  rowsOf,
  type Tensor,
  tensor,
} from "../../../runtime/tensor.js";
import { CausalConv3d, loadGamma, NormConv } from "./conv.js";
import { convInit, loadParameter, type StreamSide, streamScales, type VaeLoader } from "./parameters.js";
import type { Strip } from "./strip.js";

// Blocks of Wan's VAE (Wan2.1, wan/modules/vae.py). Volumes are [frames, rows, width, channels], this rank's own rows.

/** A 1×1×1 convolution: out = x Wᵀ + b, pixel by pixel. */
export class Pointwise {
  private constructor(
    private readonly device: Device,
    private readonly weight: Tensor,
    private readonly bias: Tensor,
  ) {}

  /** @param rows how many of the output channels are wanted, from the first. */
  static async load(
    loader: VaeLoader,
    path: string,
    side: StreamSide,
    storedShape: readonly number[],
    rows?: number,
  ): Promise<Pointwise> {
    const { context, dtype } = loader;
    const scales = streamScales(loader, side);
    const load = (name: "weight" | "bias", shape: readonly number[]) =>
      loadParameter(loader, {
        ...{ name: `${path}.${name}`, shape, init: convInit(storedShape), dtype, scale: scales[name] },
        ...(rows === undefined ? {} : { rows }),
      });
    return new Pointwise(
      context.device,
      await load("weight", storedShape),
      await load("bias", storedShape.slice(0, 1)),
    );
  }

  forward(x: Tensor, out: Tensor, residual?: Tensor): void {
    gemm(this.device, asMatrix(out), asMatrix(x), this.weight, {
      bias: tensor(this.bias.address, this.bias.dtype, [elements(this.bias.shape)]),
      residual: residual && asMatrix(residual),
    });
  }

  /** The layer of some of its output channels. */
  part(start: number, count: number): Pointwise {
    return new Pointwise(this.device, rowsOf(this.weight, start, count), rowsOf(this.bias, start, count));
  }
}

function asMatrix(x: Tensor): Tensor {
  const { rows, columns } = matrixShape(x);
  return tensor(x.address, x.dtype, [rows, columns], x.shape.length > 2 ? columns : x.rowStride);
}

/** x + conv(SiLU(norm(conv(SiLU(norm(x)))))), x through a 1×1×1 convolution where the number of channels changes. */
export class ResidualBlock {
  private constructor(
    private readonly device: Device,
    private readonly outChannels: number,
    private readonly first: NormConv,
    private readonly second: NormConv,
    private readonly shortcut: Pointwise | undefined,
  ) {}

  static async load(loader: VaeLoader, path: string, inChannels: number, outChannels: number): Promise<ResidualBlock> {
    const at = (index: number) => `${path}.residual.${index}`;
    return new ResidualBlock(
      loader.context.device,
      outChannels,
      await NormConv.load(loader, at(0), { path: at(2), inChannels, outChannels, side: "into" }),
      await NormConv.load(loader, at(3), { path: at(6), inChannels: outChannels, outChannels, side: "into" }),
      inChannels === outChannels
        ? undefined
        : await Pointwise.load(loader, `${path}.shortcut`, "within", [outChannels, inChannels, 1, 1, 1]),
    );
  }

  get convs(): CausalConv3d[] {
    return [this.first.conv, this.second.conv];
  }

  /** Works in place where the number of channels stays: then the result is x. */
  forward(x: Tensor, strip: Strip): Tensor {
    const { device, shortcut } = this;
    const shape = [...x.shape.slice(0, -1), this.outChannels];
    const out = shortcut ? device.allocate(x.dtype, shape) : x;
    device.arena.scope(() => {
      const hidden = device.allocate(x.dtype, shape);
      this.first.forward(x, strip, hidden);
      shortcut?.forward(x, out);
      this.second.forward(hidden, strip, out, out);
    });
    return out;
  }
}

/** Queries that are attended at a time: bounds the scores, which are float32 [queries, pixels of a frame]. */
const QUERY_BLOCK = 4096;

/** Single-head attention among the pixels of each frame. A rank computes its own rows' queries over the whole frame's keys. */
export class AttentionBlock {
  private constructor(
    private readonly context: Context,
    private readonly channels: number,
    private readonly dtype: VaeDtype,
    private readonly gamma: Tensor,
    private readonly q: Pointwise,
    private readonly k: Pointwise,
    private readonly v: Pointwise,
    private readonly proj: Pointwise,
  ) {}

  static async load(loader: VaeLoader, path: string, channels: number): Promise<AttentionBlock> {
    const gamma = await loadGamma(loader, `${path}.norm`, [channels, 1, 1]);
    const qkv = await Pointwise.load(loader, `${path}.to_qkv`, "outside", [3 * channels, channels, 1, 1]);
    const proj = await Pointwise.load(loader, `${path}.proj`, "into", [channels, channels, 1, 1]);
    const part = (index: number) => qkv.part(index * channels, channels);
    return new AttentionBlock(loader.context, channels, loader.dtype, gamma, part(0), part(1), part(2), proj);
  }

  /** x += attention(norm(x)), in place. x [frames, rows, width, channels]. */
  forward(x: Tensor, strip: Strip): void {
    const { device } = this.context;
    const width = x.shape[2] ?? 0;
    const pixelsOfRank = strip.rowsOfRank.map((rows) => rows * width);
    for (let frame = 0; frame < (x.shape[0] ?? 0); frame++) {
      device.arena.scope(() => this.#attend(asMatrix(partOf(x, frame)), pixelsOfRank, strip.own.start * width));
    }
  }

  /** What a rank without rows does in place of `forward` for one frame: it takes part in the gather. */
  takePart(strip: Strip, width: number): void {
    const { context, channels, dtype } = this;
    const pixelsOfRank = strip.rowsOfRank.map((rows) => rows * width);
    context.device.arena.scope(() => this.#gather(undefined, pixelsOfRank, dtype, channels));
  }

  /** x [own pixels, channels]; first: how many pixels of the frame lie on ranks before this one. */
  #attend(x: Tensor, pixelsOfRank: readonly number[], first: number): void {
    const { device } = this.context;
    const { rows: own, columns: channels } = matrixShape(x);
    const all = this.#gather(x, pixelsOfRank, x.dtype, channels);
    const pixels = matrixShape(all).rows;
    const rows = (count: number) => device.allocate(x.dtype, [count, channels]);
    const [q, k, v, attended] = [rows(own), rows(pixels), rows(pixels), rows(own)];
    this.q.forward(rowsOf(all, first, own), q);
    this.k.forward(all, k);
    this.v.forward(all, v);
    const vT = device.allocate(x.dtype, [channels, pixels]);
    transpose(device, vT, v);
    for (let start = 0; start < own; start += QUERY_BLOCK) {
      const count = Math.min(QUERY_BLOCK, own - start);
      device.arena.scope(() => {
        // Scores and their softmax stay in float32; the probabilities are rounded once, to the dtype of v.
        const scores = device.allocate("fp32", [count, pixels]);
        gemm(device, scores, rowsOf(q, start, count), k);
        const weights = x.dtype === "fp32" ? scores : device.allocate(x.dtype, [count, pixels]);
        softmaxRows(device, weights, scores, channels ** -0.5);
        gemm(device, rowsOf(attended, start, count), weights, vT);
      });
    }
    this.proj.forward(attended, x, x);
  }

  /** norm(x) of the whole frame [Σ pixels, channels]. */
  #gather(x: Tensor | undefined, pixelsOfRank: readonly number[], dtype: Tensor["dtype"], channels: number): Tensor {
    const { device, world } = this.context;
    const all = device.allocate(dtype, [pixelsOfRank.reduce((sum, pixels) => sum + pixels, 0), channels]);
    if (pixelsOfRank.length === 1) {
      if (x) channelNorm(device, all, x, this.gamma, "identity");
      return all;
    }
    const part = world.gatherPart(pixelsOfRank, channels, dtype);
    if (x) channelNorm(device, part, x, this.gamma, "identity");
    world.allGather(part, pixelsOfRank, all);
    return all;
  }
}

/** Twice the height and width (nearest, then a convolution that halves the channels), and twice the frames but for the first. */
export class Upsample {
  private constructor(
    private readonly device: Device,
    private readonly spatial: CausalConv3d,
    private readonly temporal: CausalConv3d | undefined,
  ) {}

  static async load(loader: VaeLoader, path: string, channels: number, temporal: boolean): Promise<Upsample> {
    const spatial = await CausalConv3d.load(loader, {
      path: `${path}.resample.1`,
      inChannels: channels,
      outChannels: channels / 2,
      kernel: [1, 3, 3],
      flat: true,
      upsample: 2,
      side: "within",
    });
    const timeConv = {
      side: "within",
      path: `${path}.time_conv`,
      inChannels: channels,
      outChannels: 2 * channels,
    } as const;
    return new Upsample(
      loader.context.device,
      spatial,
      temporal ? await CausalConv3d.load(loader, { ...timeConv, kernel: [3, 1, 1] }) : undefined,
    );
  }

  get convs(): CausalConv3d[] {
    return this.temporal ? [this.spatial, this.temporal] : [this.spatial];
  }

  /** x [frames, rows, width, channels] -> [frames or 2 · frames, 2 · rows, 2 · width, channels / 2]. */
  forward(x: Tensor, strip: Strip, firstChunk: boolean): Tensor {
    const { device, temporal } = this;
    const [frames = 0, rows = 0, width = 0, channels = 0] = x.shape;
    // The first frame has none before it to be interpolated with: it stays one, and is not kept either.
    const doubled = temporal !== undefined && !firstChunk;
    const shape: [number, number, number, number] = [doubled ? 2 * frames : frames, rows, width, channels];
    const out = device.allocate(x.dtype, this.spatial.outShape(shape));
    device.arena.scope(() => {
      if (!doubled) {
        this.spatial.forward(strip.surround(device, x), strip, out);
        return;
      }
      const volume = strip.allocate(device, x.dtype, shape);
      device.arena.scope(() => this.#doubleFrames(temporal, x, volume, strip));
      this.spatial.forward(volume, strip, out);
    });
    return out;
  }

  /** Frames 2t and 2t + 1 of the volume are the first and the second half of the channels that the convolution gives frame t. */
  #doubleFrames(temporal: CausalConv3d, x: Tensor, volume: Tensor, strip: Strip): void {
    const { device } = this;
    const [frames = 0, rows = 0, width = 0, channels = 0] = x.shape;
    const pairs = device.allocate(x.dtype, temporal.outShape(x.shape));
    temporal.forward(x, strip, pairs);
    const pixelBytes = channels * dtypeBytes(x.dtype);
    for (let frame = 0; frame < 2 * frames; frame++) {
      const to = strip.frame(volume, frame).address;
      const from = partOf(pairs, Math.floor(frame / 2)).address + (frame % 2) * pixelBytes;
      copyRows(
        device,
        { address: to, pitch: pixelBytes },
        { address: from, pitch: 2 * pixelBytes },
        { rows: rows * width, rowBytes: pixelBytes },
      );
    }
  }
}

/** Half the height and width, and half the frames but for the first. Whole volumes only. */
export class Downsample {
  /** The last frame of the chunk before, already halved in space. */
  #last: Tensor | undefined;

  private constructor(
    private readonly device: Device,
    private readonly spatial: CausalConv3d,
    private readonly temporal: CausalConv3d | undefined,
  ) {}

  static async load(loader: VaeLoader, path: string, channels: number, temporal: boolean): Promise<Downsample> {
    const layer = { inChannels: channels, outChannels: channels, side: "within" } as const;
    const space = { path: `${path}.resample.1`, kernel: [1, 3, 3], flat: true, stride: "space" } as const;
    const time = { path: `${path}.time_conv`, kernel: [3, 1, 1], stride: "time" } as const;
    return new Downsample(
      loader.context.device,
      await CausalConv3d.load(loader, { ...layer, ...space }),
      temporal ? await CausalConv3d.load(loader, { ...layer, ...time }) : undefined,
    );
  }

  /** x [frames, height, width, channels] -> [frames or frames / 2, height / 2, width / 2, channels]. */
  forward(x: Tensor, strip: Strip, firstChunk: boolean): Tensor {
    const { device, temporal } = this;
    const halved = this.spatial.outShape(x.shape);
    if (!temporal) {
      const out = device.allocate(x.dtype, halved);
      this.spatial.forward(x, strip, out);
      return out;
    }
    const [frames, ...frameShape] = halved;
    // The last frame of the chunk before stands in front of this chunk's.
    const volume = device.allocate(x.dtype, [1 + frames, ...frameShape]);
    const own = partsOf(volume, 1, frames);
    const bytes = elements(frameShape) * dtypeBytes(x.dtype);
    this.spatial.forward(x, strip, own);
    this.#last ??= device.allocatePersistent(x.dtype, frameShape);
    if (this.#last.shape.join() !== frameShape.join()) {
      throw new Error(`A downsampling was measured for frames [${this.#last.shape}], not [${frameShape}].`);
    }
    copy(device, volume, this.#last, bytes);
    copy(device, this.#last, partOf(volume, frames), bytes);
    if (firstChunk) return own;
    // A frame of the result sees three: two of the chunk and the one before them. Stride 2 over [last, chunk].
    const later = partsOf(volume, 2, frames - 1);
    const out = device.allocate(x.dtype, temporal.outShape(later.shape));
    temporal.apply(later, { out, history: partsOf(volume, 0, 2) });
    return out;
  }
}
