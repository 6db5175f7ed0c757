import { DitrunError } from "../../../failure.js";
import { type LatentSize, type WanModel, wanTokens } from "../../../models/schema.js";
import { checkWanParts } from "../../../models/wan/traits.js";
import type { Context } from "../../comm/context.js";
import type { Attention } from "../../layers/attention/attention.js";
import { makeAttention } from "../../layers/attention/choose.js";
import { type Linear, type Loader, loadColumnLinear } from "../../layers/linear.js";
import { type Precision, switchedAttention, withoutQuantisation } from "../../layers/precision.js";
import { gatherTensorCp, partForGatherCp, type Range, splitTensorCp } from "../../layers/split.js";
import { copy } from "../../ops/copy.js";
import { cast } from "../../ops/elementwise.js";
import { patchifyVideo, rope3d, unpatchifyVideo } from "../../ops/embedding.js";
import { layerNorm } from "../../ops/norm.js";
import { noTap, type Tap } from "../../runtime/tap.js";
import { type Tensor, tensorBytes } from "../../runtime/tensor.js";
import { headsOf, WanBlock } from "./block.js";
import { Conditioning } from "./conditioning.js";

/** Guidance runs the model twice a step: with the prompt, and with the negative prompt. */
export type TextSlot = "cond" | "uncond";

/** Floating-point operations of one forward, all ranks together: 2 per multiply-add of the linears and of attention. */
export function wanFlops(model: WanModel, size: LatentSize): number {
  const tokens = wanTokens(model, size);
  const { width, ffn, layers, textLength, channels, patch } = model;
  const linears = 2 * tokens * width * (6 * width + 2 * ffn);
  const attention = 4 * tokens * (tokens + textLength) * width;
  return layers * (linears + attention) + 2 * 2 * tokens * width * channels * patch * patch;
}

/**
 * Wan 2.1's diffusion transformer (wan/modules/model.py): patches of the latent, blocks modulated by the time step, with
 * ring self-attention and cross-attention to the text, a modulated linear head, back to the latent. Tokens are split over cp
 * from the patches to the head's output, which is gathered once. The residual stream, the time step's path and the head are
 * float32 in every plan.
 */
export class WanTransformer {
  readonly flops: number;
  readonly #tokens: Range & { readonly tokensOfRank: readonly number[] };
  /** Keys and values of each block, for each precision. */
  readonly #text = new Map<TextSlot, ReadonlyMap<boolean, readonly Tensor[]>>();

  private constructor(
    private readonly context: Context,
    private readonly model: WanModel,
    private readonly size: LatentSize,
    private readonly ring: Attention,
    private readonly layers: {
      readonly conditioning: Conditioning;
      readonly patch: Linear;
      readonly text: readonly [Linear, Linear];
      readonly blocks: readonly WanBlock[];
      readonly head: Linear;
    },
    /** float32 [textLength, text width]: the prompt at hand, padded with zeros. */
    private readonly prompt: Tensor,
    /** float32 [tokens, headDim], for this rank's tokens. */
    private readonly rope: Tensor,
    private readonly precision: Precision | undefined,
  ) {
    this.flops = wanFlops(model, size);
    this.#tokens = splitTensorCp(context, wanTokens(model, size));
  }

  /**
   * @param loader with a precision, the linear layers are held as the plan says and in its dtype too: `quantised` chooses.
   * @param textWidth columns of the text encoder's output.
   * @throws DitrunError when the plan or the latent's size does not fit the model, or the checkpoint does not.
   */
  static async load(loader: Loader, model: WanModel, textWidth: number, size: LatentSize): Promise<WanTransformer> {
    const { context, precision } = loader;
    const { device } = context;
    const { width, heads, channels, patch, textLength } = model;
    requireSupported(context, model, size);
    const pixels = channels * patch * patch;
    const linear = (path: string, inFeatures: number, outFeatures: number) =>
      loadColumnLinear(loader, { path, inFeatures, outFeatures, keepDtype: true });
    const patchEmbedding = await loadColumnLinear(loader, {
      ...{ path: "patch_embedding", inFeatures: pixels, outFeatures: width, keepDtype: true, outDtype: "fp32" },
      storedShape: [width, channels, 1, patch, patch],
    });
    const text = [
      await linear("text_embedding.0", textWidth, width),
      await linear("text_embedding.2", width, width),
    ] as const;
    const conditioning = await Conditioning.load(loader, model);
    const ownHeads = headsOf(loader, "blocks.0.self_attn", heads);
    const planned = makeAttention(context, ownHeads);
    const plain = () => makeAttention(context.withPlan(withoutQuantisation(context.plan)), ownHeads);
    const ring = precision ? switchedAttention(precision, planned, plain()) : planned;
    const blocks: WanBlock[] = [];
    for (let index = 0; index < model.layers; index++) {
      blocks.push(await WanBlock.load(loader, model, `blocks.${index}`, ring));
    }
    const headSpec = { path: "head.head", inFeatures: width, outFeatures: pixels, inFloat32: true };
    const head = await loadColumnLinear(loader, headSpec);

    const tokens = splitTensorCp(context, wanTokens(model, size));
    const rope = device.allocatePersistent("fp32", [tokens.count, width / heads]);
    rope3d(device, rope, { gridHeight: size.height / patch, gridWidth: size.width / patch }, tokens.start);
    const prompt = device.allocatePersistent("fp32", [textLength, textWidth]);
    const layers = { conditioning, patch: patchEmbedding, text, blocks, head };
    return new WanTransformer(context, model, size, ring, layers, prompt, rope, precision);
  }

  /**
   * Gives a slot its text: float32 [tokens, text width] on the device, or the same values on the host. Pads it with zeros to
   * the model's text length and queues every block's keys and values of it.
   * @throws DitrunError when it has no rows or too many.
   */
  async setText(slot: TextSlot, text: Tensor | Float32Array, tap: Tap = noTap): Promise<void> {
    const { device } = this.context;
    const [textLength = 0, textWidth = 0] = this.prompt.shape;
    const rows = text instanceof Float32Array ? text.length / textWidth : (text.shape[0] ?? 0);
    if (rows < 1 || rows > textLength || !Number.isInteger(rows)) {
      throw new DitrunError(
        "ERR_TENSOR_SHAPE",
        `A text of ${rows} rows of ${textWidth} was given; the model takes 1 to ${textLength}.`,
      );
    }
    device.clear(this.prompt);
    if (text instanceof Float32Array) {
      await device.upload(this.prompt, new Uint8Array(text.buffer, text.byteOffset, text.byteLength));
    } else copy(device, this.prompt, text, tensorBytes("fp32", [rows, textWidth]));
    this.embedText(slot, tap);
  }

  /** Tokens of the residual stream on this rank, and of all ranks. */
  get rows(): Range & { readonly total: number } {
    return { ...this.#tokens, total: wanTokens(this.model, this.size) };
  }

  /** Tokens of this rank. */
  get tokens(): number {
    return this.#tokens.count;
  }

  /** The precisions that this transformer can compute in: quantised as the plan says, and not. */
  get precisions(): readonly boolean[] {
    return this.precision ? [true, false] : [true];
  }

  /** Runs the body with forwards queued in one of the precisions. */
  inPrecision<T>(quantised: boolean, body: () => T): T {
    const { precision } = this;
    if (!precision) {
      if (quantised) return body();
      throw new Error("The transformer holds no weights in the plan's dtype besides those in e4m3.");
    }
    const before = precision.quantised;
    precision.quantised = quantised;
    try {
      return body();
    } finally {
      precision.quantised = before;
    }
  }

  /** Queues the text embedding of the prompt at hand and every block's keys and values. For the measuring pass, and setText. */
  embedText(slot: TextSlot, tap: Tap = noTap): void {
    const { device, plan } = this.context;
    const { textLength } = this.model;
    const allocate = () =>
      this.layers.blocks.map((block) => device.allocatePersistent(plan.dtype, [2, textLength, block.textColumns]));
    const kv = this.#text.get(slot) ?? new Map(this.precisions.map((quantised) => [quantised, allocate()]));
    this.#text.set(slot, kv);
    device.arena.scope(() => {
      const padded = device.allocate(plan.dtype, this.prompt.shape);
      cast(device, padded, this.prompt);
      const hidden = this.layers.text[0].forward(padded, { activation: "geluTanh" });
      const text = this.layers.text[1].forward(hidden); // [textLength, width]
      tap("text_embedding", text);
      for (const [quantised, ofBlocks] of kv) {
        this.inPrecision(quantised, () => {
          ofBlocks.forEach((keysAndValues, index) => {
            this.layers.blocks[index]?.embedText(text, keysAndValues);
          });
        });
      }
    });
  }

  /** The time step of the forwards to come. */
  async setTime(t: number): Promise<void> {
    await this.layers.conditioning.setTime(t);
  }

  /**
   * Queues one forward: latent and out float32 [channels, frames, height, width], whole on every rank; out may be latent.
   * Only queues, with fixed addresses, so it can be captured: one graph for each slot serves every step.
   * @throws DitrunError when the slot has no text yet, or the latent has another size than the model was loaded for.
   */
  forward(slot: TextSlot, latent: Tensor, out: Tensor, tap: Tap = noTap): void {
    const { context, size, model } = this;
    const { device, plan } = context;
    const text = this.#text.get(slot)?.get(this.precision?.quantised ?? true);
    if (!text)
      throw new DitrunError(
        "ERR_INTERNAL",
        `The transformer was asked for its "${slot}" forward before it was given that text.`,
      );
    const expected = [model.channels, size.frames, size.height, size.width];
    for (const { shape } of [latent, out]) {
      if (shape.length === expected.length && shape.every((length, axis) => length === expected[axis])) continue;
      throw new DitrunError(
        "ERR_INTERNAL",
        `A latent [${shape}] was given to a transformer that was loaded for [${expected}].`,
      );
    }
    const { count, start, tokensOfRank } = this.#tokens;
    const pixels = model.channels * model.patch ** 2;
    device.arena.scope(() => {
      const x = device.allocate("fp32", [count, model.width]);
      device.arena.scope(() => {
        const patches = device.allocate(plan.dtype, [count, pixels]);
        patchifyVideo(device, patches, latent, model.patch, start);
        this.layers.patch.forward(patches, { out: x });
      });
      tap("patch_embedding", x);
      const modulation = this.layers.conditioning.forward(tap);
      this.layers.blocks.forEach((block, index) => {
        const keysAndValues = text[index];
        if (!keysAndValues) throw new Error(`Block ${index} has no text.`);
        const inputs = { modulation: modulation.ofBlock(index), rope: this.rope, tokensOfRank, text: keysAndValues };
        device.span(`blocks.${index}`, () => block.forward(x, inputs, tap));
      });
      const part = partForGatherCp(context, tokensOfRank, pixels, "fp32"); // [tokens, pixels]
      const h = device.allocate("fp32", x.shape);
      layerNorm(device, h, x, { modulation: modulation.head, epsilon: model.epsilon });
      this.layers.head.forward(h, { out: part });
      tap("head", part);
      unpatchifyVideo(device, out, gatherTensorCp(context, part, tokensOfRank), model.patch, 0);
    });
  }

  /** Milliseconds that self-attention waited for the blocks of each ring step since the last call. */
  takeRingWaits(): Promise<number[]> {
    return this.ring.takeWaits();
  }
}

function requireSupported({ plan, cp }: Context, model: WanModel, { height, width, frames }: LatentSize): void {
  const { patch, name } = model;
  if (height % patch !== 0 || width % patch !== 0) {
    throw new DitrunError(
      "ERR_VIDEO_SIZE",
      `A latent of ${height} by ${width} cannot be cut into ${name}'s patches of ${patch}: choose a video whose sides are multiples of ${8 * patch}.`,
    );
  }
  const tokens = wanTokens(model, { frames, height, width });
  if (tokens < cp.size) {
    throw new DitrunError(
      "ERR_PLAN_MESH",
      `The latent's ${tokens} tokens are fewer than the cp ${cp.size} ranks that share them.`,
    );
  }
  checkWanParts(plan, name);
}
