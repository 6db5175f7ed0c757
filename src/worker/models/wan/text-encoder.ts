import { DitrunError } from "../../../failure.js";
import type { TextEncoderModel } from "../../../models/schema.js";
import type { Context } from "../../comm/context.js";
import {
  type Linear,
  type Loader,
  loadColumnLinear,
  loadRowLinear,
  type ResidualLinear,
  requirePair,
} from "../../layers/linear.js";
import { loadNormWeight } from "../../layers/rms-norm.js";
import { rangeOf, shares } from "../../layers/split.js";
import { attention } from "../../ops/attention.js";
import { multiply } from "../../ops/elementwise.js";
import { gatherRows } from "../../ops/embedding.js";
import { rmsNorm } from "../../ops/norm.js";
import { partOf, rowsOf, type Tensor, tensor } from "../../runtime/tensor.js";
import { keepTensor } from "../../weights/kept.js";
import { wholeOf } from "../../weights/source.js";
import { BUCKETS, RelativeBias } from "./relative-bias.js";

const EPSILON = 1e-6;

/**
 * The umT5 encoder (arXiv 2304.09151; wan/modules/t5.py): token embedding, then layers of x += attn(norm1(x)) without a
 * scale and with the layer's own relative position bias, x += fc2(fc1(h) · gelu(gate(h))) of h = norm2(x); a final norm.
 * Weights and products are in the plan's dtype; the residual stream is float32, and so is the result.
 */
export class TextEncoder {
  private constructor(
    private readonly context: Context,
    readonly model: TextEncoderModel,
    private readonly textLength: number,
    private readonly table: Tensor,
    private readonly ids: Tensor,
    private readonly layers: readonly EncoderLayer[],
    private readonly norm: Tensor,
    /** float32 [textLength, width]. */
    private readonly output: Tensor,
  ) {}

  /** @param textLength the most tokens of a prompt. @throws DitrunError when tp or the checkpoint does not fit. */
  static async load(loader: Loader, model: TextEncoderModel, textLength: number): Promise<TextEncoder> {
    const { device } = loader.context;
    const { width } = model;
    const table = await keepTensor(loader, "token_embedding", () => TextEncoder.#loadTable(loader, model));
    const layers: EncoderLayer[] = [];
    for (let index = 0; index < model.layers; index++) {
      layers.push(await EncoderLayer.load(loader, model, textLength, `blocks.${index}`));
    }
    const norm = await loadNormWeight(loader, "norm", width);
    const ids = device.allocatePersistent("i32", [textLength]);
    const output = device.allocatePersistent("fp32", [textLength, width]);
    return new TextEncoder(loader.context, model, textLength, table, ids, layers, norm, output);
  }

  static async #loadTable({ context: { device, plan }, source }: Loader, model: TextEncoderModel): Promise<Tensor> {
    const { width } = model;
    const table = device.allocatePersistent(plan.dtype, [model.vocabulary, width]);
    const parameter = {
      name: "token_embedding.weight",
      shape: [model.vocabulary, width],
      init: { kind: "normal", std: 1 } as const,
    };
    await source.load(parameter, wholeOf(parameter), table);
    return table;
  }

  /**
   * Queues the encoding of a prompt's token ids, without padding.
   * @returns float32 [ids.length, width], whole on every rank, until the next call.
   * @throws DitrunError when there are no ids, too many, or one that the table does not have.
   */
  async encode(ids: Int32Array | readonly number[]): Promise<Tensor> {
    const { device } = this.context;
    if (ids.length < 1 || ids.length > this.textLength) {
      throw new DitrunError(
        "ERR_PROMPT",
        `A prompt of ${ids.length} tokens cannot be encoded: give 1 to ${this.textLength}.`,
      );
    }
    const foreign = Array.from(ids).find((id) => !Number.isInteger(id) || id < 0 || id >= this.model.vocabulary);
    if (foreign !== undefined) {
      throw new DitrunError(
        "ERR_CHECKPOINT_MISMATCH",
        `The prompt has token ${foreign}, but the text encoder's table has ${this.model.vocabulary} rows: are its tokenizer and weights of one checkpoint?`,
      );
    }
    const padded = new Int32Array(this.textLength);
    padded.set(ids);
    await device.upload(this.ids, new Uint8Array(padded.buffer));
    for (const layer of this.layers) await layer.bias.setLength(device, ids.length);
    return this.forward(ids.length);
  }

  /** Queues the forward of the first `tokens` ids. For the measuring pass; `encode` is for everything else. */
  forward(tokens = this.textLength): Tensor {
    const { device } = this.context;
    const output = rowsOf(this.output, 0, tokens);
    device.arena.scope(() => {
      const x = device.allocate("fp32", [tokens, this.model.width]);
      gatherRows(device, x, this.table, this.ids);
      for (const layer of this.layers) layer.forward(x);
      rmsNorm(device, output, x, { weight: this.norm, epsilon: EPSILON });
    });
    return output;
  }
}

/** x += attn(norm1(x)); x += fc2(fc1(norm2(x)) · gelu(gate(norm2(x)))). Heads and ffn are split over tp. */
class EncoderLayer {
  private constructor(
    private readonly context: Context,
    private readonly heads: number,
    readonly bias: RelativeBias,
    private readonly norms: readonly [Tensor, Tensor],
    private readonly qkv: Linear,
    private readonly o: ResidualLinear,
    private readonly gate: Linear,
    private readonly fc1: Linear,
    private readonly fc2: ResidualLinear,
  ) {}

  static async load(loader: Loader, model: TextEncoderModel, textLength: number, path: string): Promise<EncoderLayer> {
    const { tp } = loader.context;
    const { width, ffn, heads, headDim } = model;
    const inner = heads * headDim;
    requirePair(loader, `${path}.attn.q`, "heads", `${path}.attn.o`);
    requirePair(loader, `${path}.ffn.gate.0`, "column", `${path}.ffn.fc2`);
    requirePair(loader, `${path}.ffn.fc1`, "column", `${path}.ffn.fc2`);
    const linear = (name: string, inFeatures: number, outFeatures: number) => ({
      ...{ path: `${path}.${name}`, inFeatures, outFeatures, bias: false },
      // Prompts are encoded once: fp8 would save nothing and cost accuracy.
      keepDtype: true,
    });
    const partPaths = ["q", "k", "v"].map((part) => `${path}.attn.${part}`);
    const qkv = await loadColumnLinear(loader, { ...linear("attn.qkv", width, 3 * inner), parts: 3, partPaths }, heads);
    const split = tp.size > 1 && loader.splitOf(`${path}.attn.q`) === "heads";
    const own = split ? rangeOf(shares(heads, tp.size), tp.rank) : { start: 0, count: heads };
    return new EncoderLayer(
      loader.context,
      own.count,
      await RelativeBias.load(loader, `${path}.pos_embedding.embedding.weight`, [BUCKETS, heads], own, textLength),
      [await loadNormWeight(loader, `${path}.norm1`, width), await loadNormWeight(loader, `${path}.norm2`, width)],
      qkv,
      await loadRowLinear(loader, linear("attn.o", inner, width)),
      await loadColumnLinear(loader, linear("ffn.gate.0", width, ffn)),
      await loadColumnLinear(loader, linear("ffn.fc1", width, ffn)),
      await loadRowLinear(loader, linear("ffn.fc2", ffn, width)),
    );
  }

  /** x float32 [tokens, width] is updated in place. */
  forward(x: Tensor): void {
    const { device, plan } = this.context;
    const normalised = (weight: Tensor): Tensor => {
      const h = device.allocate(plan.dtype, x.shape);
      rmsNorm(device, h, x, { weight, epsilon: EPSILON });
      return h;
    };
    device.arena.scope(() => {
      const qkv = this.qkv.forward(normalised(this.norms[0])); // [3, tokens, inner / tp]
      const q = partOf(qkv, 0);
      const o = device.allocate(plan.dtype, q.shape);
      attention(device, o, q, [{ k: partOf(qkv, 1), v: partOf(qkv, 2), flag: 0 }], {
        heads: this.heads,
        kernel: 0, // the fastest that has a relative bias, whatever the plan asks of the transformer
        scale: 1,
        relativeBias: tensor(this.bias.expanded.address, "fp32", [this.heads, 2 * (x.shape[0] ?? 1) - 1]),
      });
      this.o.addTo(x, o);
    });
    device.arena.scope(() => {
      const h = normalised(this.norms[1]);
      const gate = this.gate.forward(h, { activation: "geluTanh" });
      const up = this.fc1.forward(h); // [tokens, ffn / tp]
      multiply(device, up, up, gate);
      this.fc2.addTo(x, up);
    });
  }
}
