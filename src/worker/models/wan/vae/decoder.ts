import type { VaeDtype } from "../../../../plan/schema.js";
import type { Device } from "../../../runtime/device.js";
import type { Tensor } from "../../../runtime/tensor.js";
import { AttentionBlock, Pointwise, ResidualBlock, Upsample } from "./blocks.js";
import { CausalConv3d, NormConv } from "./conv.js";
import type { VaeLoader } from "./parameters.js";
import { CHANNEL_MULTIPLIERS, LATENT_CHANNELS, PIXEL_CHANNELS, RESIDUAL_BLOCKS, TEMPORAL_DOWNSAMPLE } from "./shape.js";
import type { Strip } from "./strip.js";

/** Latents to pixels, one latent frame at a time (Wan2.1, wan/modules/vae.py, Decoder3d after conv2). */
export class VaeDecoder {
  private constructor(
    private readonly device: Device,
    readonly dtype: VaeDtype,
    private readonly entry: Pointwise,
    private readonly first: CausalConv3d,
    private readonly middle: readonly [ResidualBlock, AttentionBlock, ResidualBlock],
    private readonly blocks: readonly (ResidualBlock | Upsample)[],
    private readonly head: NormConv,
  ) {}

  /** @param width channels at full resolution. @throws DitrunError when the checkpoint does not fit. */
  static async load(loader: VaeLoader, width: number): Promise<VaeDecoder> {
    const widths = CHANNEL_MULTIPLIERS.map((multiplier) => multiplier * width).reverse();
    const [deepest = width] = widths;
    const entry = await Pointwise.load(loader, "conv2", "outside", [LATENT_CHANNELS, LATENT_CHANNELS, 1, 1, 1]);
    const first = await CausalConv3d.load(loader, {
      path: "decoder.conv1",
      inChannels: LATENT_CHANNELS,
      outChannels: deepest,
      kernel: [3, 3, 3],
      side: "into",
    });
    const middle = [
      await ResidualBlock.load(loader, "decoder.middle.0", deepest, deepest),
      await AttentionBlock.load(loader, "decoder.middle.1", deepest),
      await ResidualBlock.load(loader, "decoder.middle.2", deepest, deepest),
    ] as const;
    const temporal = [...TEMPORAL_DOWNSAMPLE].reverse();
    const blocks: (ResidualBlock | Upsample)[] = [];
    let channels = deepest;
    for (const [level, outChannels] of widths.entries()) {
      const path = () => `decoder.upsamples.${blocks.length}`;
      for (let index = 0; index <= RESIDUAL_BLOCKS; index++) {
        blocks.push(await ResidualBlock.load(loader, path(), channels, outChannels));
        channels = outChannels;
      }
      if (level + 1 === widths.length) continue;
      blocks.push(await Upsample.load(loader, path(), channels, temporal[level] ?? false));
      channels /= 2;
    }
    const pixels = {
      path: "decoder.head.2",
      inChannels: channels,
      outChannels: PIXEL_CHANNELS,
      side: "outside",
    } as const;
    const head = await NormConv.load(loader, "decoder.head.0", pixels);
    return new VaeDecoder(loader.context.device, loader.dtype, entry, first, middle, blocks, head);
  }

  /** A new video begins. */
  reset(): void {
    const [before, , after] = this.middle;
    const blocks = [before, after, ...this.blocks].flatMap((block) => block.convs);
    for (const conv of [this.first, ...blocks, this.head.conv]) conv.reset();
  }

  /**
   * latent [1, rows, width, 16], this rank's rows of the next latent frame -> pixels [1 (first chunk) or 4, 8 · rows, 8 · width, 3],
   * not clamped. The result lies in the arena.
   */
  forward(latent: Tensor, strip: Strip, firstChunk: boolean): Tensor {
    const { device } = this;
    const [, rows = 0, width = 0] = latent.shape;
    let x = device.allocate(latent.dtype, this.first.outShape(latent.shape));
    device.arena.scope(() => {
      const volume = strip.allocate(device, latent.dtype, [1, rows, width, LATENT_CHANNELS]);
      this.entry.forward(latent, strip.frame(volume, 0));
      this.first.forward(volume, strip, x);
    });
    const [before, attention, after] = this.middle;
    x = before.forward(x, strip);
    attention.forward(x, strip);
    x = after.forward(x, strip);
    for (const block of this.blocks) x = block.forward(x, strip, firstChunk);
    const out = device.allocate(x.dtype, this.head.conv.outShape(x.shape));
    this.head.forward(x, strip, out);
    return out;
  }

  /** What a rank without rows does in place of `forward`. */
  takePart(strip: Strip, latentWidth: number): void {
    this.middle[1].takePart(strip, latentWidth);
  }
}
