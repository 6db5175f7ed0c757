import { conv3d } from "../../../ops/conv.js";
import { copy, fillZero } from "../../../ops/copy.js";
import { channelNorm } from "../../../ops/norm.js";
import type { Device } from "../../../runtime/device.js";
import { type DType, partOf, partsOf, type Tensor, tensorBytes } from "../../../runtime/tensor.js";
import { convInit, loadKernel, loadParameter, type StreamSide, streamScales, type VaeLoader } from "./parameters.js";
import type { Strip } from "./strip.js";

export interface ConvSpec {
  /** Path of the layer in the published code, such as `decoder.conv1`. */
  readonly path: string;
  readonly inChannels: number;
  readonly outChannels: number;
  /** [kernelT, kernelH, kernelW]. */
  readonly kernel: readonly [number, number, number];
  /** Stored as a torch.nn.Conv2d: without the time dimension. */
  readonly flat?: boolean;
  readonly upsample?: 2;
  /** Stride 2 in height and width, padded below and right only; or stride 2 in time. */
  readonly stride?: "space" | "time";
  readonly side: StreamSide;
}

/** A convolution that sees only its own and earlier frames. The last two frames it was given are kept for the next chunk. */
export class CausalConv3d {
  #cache: Tensor | undefined;

  private constructor(
    private readonly device: Device,
    private readonly spec: ConvSpec,
    private readonly weight: Tensor,
    private readonly bias: Tensor,
  ) {}

  /** @throws DitrunError when the checkpoint does not fit. */
  static async load(loader: VaeLoader, spec: ConvSpec): Promise<CausalConv3d> {
    const { path, inChannels, outChannels, kernel, flat, side } = spec;
    const { context, dtype } = loader;
    const storedShape = [outChannels, inChannels, ...(flat ? kernel.slice(1) : kernel)];
    const scales = streamScales(loader, side);
    const shape = [outChannels, ...kernel, inChannels] as const;
    const weight = await loadKernel(loader, `${path}.weight`, shape, storedShape, scales.weight);
    const init = convInit(storedShape);
    const bias = { name: `${path}.bias`, shape: [outChannels], init, dtype, scale: scales.bias };
    return new CausalConv3d(context.device, spec, weight, await loadParameter(loader, bias));
  }

  /** Shape of the result for this rank's own rows of x [frames, rows, width, inChannels]. */
  outShape([frames = 0, rows = 0, width = 0]: readonly number[]): [number, number, number, number] {
    const { upsample = 1, stride, outChannels } = this.spec;
    const size = (n: number) => (stride === "space" ? n / 2 : n * upsample);
    return [stride === "time" ? Math.floor((frames - 1) / 2) + 1 : frames, size(rows), size(width), outChannels];
  }

  /**
   * out = conv(x) + residual for the next frames of the video. x [frames, top + rows + bottom, width, inChannels] as
   * Strip.allocate made it; where the kernel is higher than a row, the rows around this rank's own are filled here.
   */
  forward(x: Tensor, strip: Strip, out: Tensor, residual?: Tensor): void {
    const [kernelT, kernelH] = this.spec.kernel;
    if (kernelH > 1) strip.exchange(x);
    if (kernelT === 1) {
      this.apply(x, { out, residual, strip });
      return;
    }
    const history = this.#history(x);
    this.apply(x, { out, residual, strip, history });
    this.#keep(history, x);
  }

  /**
   * As forward, for x of this dtype and shape [frames, rows, width, inChannels] that `write` puts, from its frame `start` on, into
   * volumes with room for the neighbours' rows. Its last two frames are written where those before x lie, once these have been read:
   * they are kept without being copied.
   */
  forwardWritten(
    { dtype, shape }: { dtype: DType; shape: readonly number[] },
    write: (volume: Tensor, start: number) => void,
    strip: Strip,
    out: Tensor,
    residual?: Tensor,
  ): void {
    const { device } = this;
    const [frames = 0, rows = 0, width = 0, channels = 0] = shape;
    const kept = this.spec.kernel[0] - 1;
    const early = frames < 2 * kept ? frames : frames - kept;
    device.arena.scope(() => {
      const first = strip.allocate(device, dtype, [early, rows, width, channels]);
      write(first, 0);
      if (early === frames) {
        this.forward(first, strip, out, residual);
        return;
      }
      const history = this.#history(first);
      const convolve = (x: Tensor, before: Tensor, start: number) => {
        const part = (whole: Tensor) => partsOf(whole, start, x.shape[0] ?? 0);
        strip.exchange(x);
        this.apply(x, { out: part(out), residual: residual && part(residual), strip, history: before });
      };
      convolve(first, history, 0);
      write(history, early);
      convolve(history, partsOf(first, early - kept, kept), early);
    });
  }

  /** The convolution itself, over history (the two frames before x) if given, without touching what is kept. */
  apply(
    x: Tensor,
    { out, residual, history, strip }: { out: Tensor; residual?: Tensor | undefined; history?: Tensor; strip?: Strip },
  ): void {
    const { kernel, upsample = 1, stride } = this.spec;
    const pad = kernel[1] > 1 ? 1 : 0;
    const { top, bottom } = kernel[1] > 1 && strip ? strip : { top: 0, bottom: 0 };
    conv3d(this.device, out, x, this.weight, {
      bias: this.bias,
      residual,
      history,
      stride: stride === "space" ? [1, 2, 2] : stride === "time" ? [2, 1, 1] : [1, 1, 1],
      // Under upsample 2 a neighbour's row counts twice, and one of the two is left out.
      pad: stride === "space" ? [0, 1, 0, 1] : [pad - upsample * top, pad - upsample * bottom, pad, pad],
      upsample,
    });
  }

  /** A new video begins: the frames before it are zeros. */
  reset(): void {
    if (this.#cache) fillZero(this.device, this.#cache);
  }

  /** The two frames before x, as they were given. Made while the first forward is measured. */
  #history(x: Tensor): Tensor {
    const shape = [this.spec.kernel[0] - 1, ...x.shape.slice(1)];
    if (this.#cache && this.#cache.shape.join() === shape.join()) return this.#cache;
    if (!this.device.measuring) {
      throw new Error(`${this.spec.path} was measured for other frames than [${x.shape.slice(1)}].`);
    }
    this.#cache = this.device.allocatePersistent(x.dtype, shape);
    return this.#cache;
  }

  #keep(history: Tensor, x: Tensor): void {
    const frames = x.shape[0] ?? 0;
    const bytes = tensorBytes(x.dtype, x.shape.slice(1));
    if (frames > 1) {
      copy(this.device, history, partOf(x, frames - 2), 2 * bytes);
    } else {
      copy(this.device, history, partOf(history, 1), bytes);
      copy(this.device, partOf(history, 1), x, bytes);
    }
  }
}

/** RMS norm over channels, SiLU and a 3×3×3 convolution: the unit that residual blocks and heads are made of. */
export class NormConv {
  private constructor(
    private readonly device: Device,
    private readonly gamma: Tensor,
    readonly conv: CausalConv3d,
  ) {}

  static async load(
    loader: VaeLoader,
    norm: string,
    conv: Pick<ConvSpec, "path" | "inChannels" | "outChannels" | "side">,
  ): Promise<NormConv> {
    const gamma = await loadGamma(loader, norm, [conv.inChannels, 1, 1, 1]);
    return new NormConv(loader.context.device, gamma, await CausalConv3d.load(loader, { ...conv, kernel: [3, 3, 3] }));
  }

  /** out = conv(SiLU(norm(x))) + residual; x [frames, rows, width, inChannels], this rank's own rows. */
  forward(x: Tensor, strip: Strip, out: Tensor, residual?: Tensor): void {
    const normalise = (volume: Tensor, start: number) => {
      const frames = partsOf(x, start, volume.shape[0] ?? 0);
      channelNorm(this.device, strip.frames(volume), frames, this.gamma, "silu");
    };
    this.conv.forwardWritten(x, normalise, strip, out, residual);
  }
}

/** A norm's gain, kept in float32. */
export function loadGamma(loader: VaeLoader, path: string, shape: readonly number[]): Promise<Tensor> {
  return loadParameter(loader, { name: `${path}.gamma`, shape, init: { kind: "constant", value: 1 }, dtype: "fp32" });
}
