import type { VaeDtype } from "../../../../plan/schema.js";
import type { Device } from "../../../runtime/device.js";
import type { Tensor } from "../../../runtime/tensor.js";
import { AttentionBlock, Downsample, Pointwise, ResidualBlock } from "./blocks.js";
import { CausalConv3d, NormConv } from "./conv.js";
import type { VaeLoader } from "./parameters.js";
import { CHANNEL_MULTIPLIERS, LATENT_CHANNELS, PIXEL_CHANNELS, RESIDUAL_BLOCKS, TEMPORAL_DOWNSAMPLE } from "./shape.js";
import { Strip } from "./strip.js";

/** Pixels to the mean of the latent's distribution, one chunk of frames at a time (Wan2.1, wan/modules/vae.py, Encoder3d and conv1). */
export class VaeEncoder {
  private constructor(
    private readonly device: Device,
    readonly dtype: VaeDtype,
    private readonly first: CausalConv3d,
    private readonly blocks: readonly (ResidualBlock | Downsample)[],
    private readonly middle: readonly [ResidualBlock, AttentionBlock, ResidualBlock],
    private readonly head: NormConv,
    private readonly exit: Pointwise,
  ) {}

  /** @param width channels at full resolution. @throws DitrunError when the checkpoint does not fit. */
  static async load(loader: VaeLoader, width: number): Promise<VaeEncoder> {
    const first = await CausalConv3d.load(loader, {
      path: "encoder.conv1",
      inChannels: PIXEL_CHANNELS,
      outChannels: width,
      kernel: [3, 3, 3],
      side: "into",
    });
    const blocks: (ResidualBlock | Downsample)[] = [];
    let channels = width;
    for (const [level, multiplier] of CHANNEL_MULTIPLIERS.entries()) {
      const path = () => `encoder.downsamples.${blocks.length}`;
      for (let index = 0; index < RESIDUAL_BLOCKS; index++) {
        blocks.push(await ResidualBlock.load(loader, path(), channels, multiplier * width));
        channels = multiplier * width;
      }
      const temporal = TEMPORAL_DOWNSAMPLE[level];
      if (temporal !== undefined) blocks.push(await Downsample.load(loader, path(), channels, temporal));
    }
    const middle = [
      await ResidualBlock.load(loader, "encoder.middle.0", channels, channels),
      await AttentionBlock.load(loader, "encoder.middle.1", channels),
      await ResidualBlock.load(loader, "encoder.middle.2", channels, channels),
    ] as const;
    const moments = 2 * LATENT_CHANNELS;
    const last = { path: "encoder.head.2", inChannels: channels, outChannels: moments, side: "outside" } as const;
    const head = await NormConv.load(loader, "encoder.head.0", last);
    // The second half of the channels, the log of the variance, is not used.
    const exit = await Pointwise.load(loader, "conv1", "outside", [moments, moments, 1, 1, 1], LATENT_CHANNELS);
    return new VaeEncoder(loader.context.device, loader.dtype, first, blocks, middle, head, exit);
  }

  /** A new video begins. Downsamplings need nothing: they do not look back in the first chunk. */
  reset(): void {
    const [before, , after] = this.middle;
    const residual = this.blocks.filter((block) => block instanceof ResidualBlock);
    const convs = [before, after, ...residual].flatMap((block) => block.convs);
    for (const conv of [this.first, ...convs, this.head.conv]) conv.reset();
  }

  /**
   * pixels [1 (first chunk) or 4, height, width, 3], whole -> [1, height / 8, width / 8, 16], not normalised.
   * The result lies in the arena.
   */
  forward(pixels: Tensor, firstChunk: boolean): Tensor {
    const { device } = this;
    const strip = Strip.whole(pixels.shape[1] ?? 0);
    let x = device.allocate(pixels.dtype, this.first.outShape(pixels.shape));
    this.first.forward(pixels, strip, x);
    for (const block of this.blocks) x = block.forward(x, strip, firstChunk);
    const [before, attention, after] = this.middle;
    x = before.forward(x, strip);
    attention.forward(x, Strip.whole(x.shape[1] ?? 0));
    x = after.forward(x, strip);
    const moments = device.allocate(x.dtype, this.head.conv.outShape(x.shape));
    this.head.forward(x, strip, moments);
    const mean = device.allocate(x.dtype, [...x.shape.slice(0, -1), LATENT_CHANNELS]);
    this.exit.forward(moments, mean);
    return mean;
  }
}
