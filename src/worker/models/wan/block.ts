import type { WanModel } from "../../../models/schema.js";
import type { Context } from "../../comm/context.js";
import type { Attention } from "../../layers/attention/attention.js";
import { attentionOutput } from "../../layers/attention/output.js";
import {
  type Linear,
  type Loader,
  loadColumnLinear,
  loadRowLinear,
  type ResidualLinear,
  requirePair,
} from "../../layers/linear.js";
import { Mlp } from "../../layers/mlp.js";
import { WideRmsNorm } from "../../layers/rms-norm.js";
import { attention } from "../../ops/attention.js";
import { layerNorm } from "../../ops/norm.js";
import { allocateByHead } from "../../ops/quantize.js";
import { attentionKernels } from "../../runtime/abi.js";
import type { Tap } from "../../runtime/tap.js";
import { matrixShape, partOf, type Tensor, tensor } from "../../runtime/tensor.js";
import { keepTensor } from "../../weights/kept.js";

/** What a block is given with the residual stream. */
export interface BlockInputs {
  /** Shift, scale, gate before self-attention; shift, scale, gate before the feed-forward net: float32 [1, width] each. */
  readonly modulation: readonly Tensor[];
  /** float32 [tokens, headDim], for this rank's tokens. */
  readonly rope: Tensor;
  /** Tokens of each cp rank. */
  readonly tokensOfRank: readonly number[];
  /** Keys and values of the text, [2, textLength, width / tp]. */
  readonly text: Tensor;
}

/** Heads of an attention on this rank, by the split of its q layer. */
export function headsOf(loader: Loader, path: string, heads: number): number {
  const { tp } = loader.context;
  return tp.size > 1 && loader.splitOf(`${path}.q`) === "heads" ? heads / tp.size : heads;
}

/**
 * x += gate · selfAttention(norm1(x) modulated); x += crossAttention(norm3(x), text); x += gate · ffn(norm2(x) modulated).
 * The residual stream x is float32; what goes into a product, and under tp a gated branch's sum, is rounded to the plan's dtype.
 */
export class WanBlock {
  private constructor(
    private readonly context: Context,
    private readonly model: WanModel,
    private readonly path: string,
    private readonly self: SelfAttention,
    private readonly norm3: { readonly weight: Tensor; readonly bias: Tensor },
    private readonly cross: CrossAttention,
    private readonly ffn: Mlp,
  ) {}

  /** @param ring shared by all blocks, made for the heads that `headsOf` gives for `self_attn`. */
  static async load(loader: Loader, model: WanModel, path: string, ring: Attention): Promise<WanBlock> {
    const { context, source } = loader;
    const { width, ffn } = model;
    const vector = (name: string, value: number) =>
      keepTensor(loader, name, async () => {
        const out = context.device.allocatePersistent("fp32", [width]);
        const parameter = { name, shape: [width], init: { kind: "constant", value } as const };
        await source.load(parameter, { rows: [{ start: 0, count: width }], columns: { start: 0, count: 1 } }, out);
        return out;
      });
    return new WanBlock(
      context,
      model,
      path.replace("blocks", "block"),
      await SelfAttention.load(loader, model, `${path}.self_attn`, ring),
      { weight: await vector(`${path}.norm3.weight`, 1), bias: await vector(`${path}.norm3.bias`, 0) },
      await CrossAttention.load(loader, model, `${path}.cross_attn`),
      await Mlp.load(loader, "geluTanh", {
        up: { path: `${path}.ffn.0`, inFeatures: width, outFeatures: ffn },
        down: { path: `${path}.ffn.2`, inFeatures: ffn, outFeatures: width, outDtype: context.plan.dtype },
      }),
    );
  }

  /** Columns of this block's text keys on this rank. */
  get textColumns(): number {
    return this.cross.columns;
  }

  /** Queues kv [2, textLength, columns] = keys and values of the text [textLength, width]; once per prompt. */
  embedText(text: Tensor, kv: Tensor): void {
    this.cross.embedText(text, kv);
  }

  /** x float32 [tokens, width] is updated in place. */
  forward(x: Tensor, { modulation, rope, tokensOfRank, text }: BlockInputs, tap: Tap): void {
    const { device } = this.context;
    const [shift1, scale1, gate1, shift2, scale2, gate2] = modulation;
    if (!(shift1 && scale1 && gate1 && shift2 && scale2 && gate2)) throw new Error("A block takes six vectors.");
    tap(`${this.path}.self_attn_gate`, gate1);
    device.arena.scope(() => {
      const h = this.#normalise(x, this.self.inputDtype, { modulation: { scale: scale1, shift: shift1 } });
      this.self.o.addGatedTo(x, this.self.attend(h, rope, tokensOfRank), gate1);
    });
    device.arena.scope(() => {
      const o = this.cross.attend(this.#normalise(x, this.cross.inputDtype, this.norm3), text);
      tap(`${this.path}.before_cross_attn`, x);
      this.cross.o.addTo(x, o);
      tap(`${this.path}.after_cross_attn`, x);
    });
    tap(`${this.path}.ffn_gate`, gate2);
    device.arena.scope(() => {
      const bound = this.ffn.boundOf(matrixShape(x).rows);
      const h = this.#normalise(x, this.ffn.inputDtype, { modulation: { scale: scale2, shift: shift2 }, bound });
      this.ffn.down.addGatedTo(x, this.ffn.inside(h, bound), gate2); // inside: [tokens, ffn / tp]
    });
    tap(this.path, x);
  }

  #normalise(x: Tensor, dtype: Tensor["dtype"], options: Omit<Parameters<typeof layerNorm>[3], "epsilon">): Tensor {
    const { device } = this.context;
    const { rows, columns } = matrixShape(x);
    const h = device.allocateMatrix(dtype, [rows, columns]);
    layerNorm(device, h, x, { ...options, epsilon: this.model.epsilon });
    return h;
  }
}

/** q, k with RMSNorm over the whole width and rotary embedding; a ring over cp, heads split over tp. */
class SelfAttention {
  private constructor(
    private readonly context: Context,
    private readonly qkv: Linear,
    private readonly norm: WideRmsNorm,
    private readonly ring: Attention,
    readonly o: ResidualLinear,
  ) {}

  static async load(loader: Loader, model: WanModel, path: string, ring: Attention): Promise<SelfAttention> {
    const { width, heads, epsilon } = model;
    requirePair(loader, `${path}.q`, "heads", `${path}.o`);
    const partPaths = ["q", "k", "v"].map((part) => `${path}.${part}`);
    const spec = { path: `${path}.qkv`, inFeatures: width, outFeatures: 3 * width, parts: 3, partPaths };
    const split = loader.splitOf(`${path}.q`) === "heads";
    const paths = [`${path}.norm_q`, `${path}.norm_k`];
    return new SelfAttention(
      loader.context,
      await loadColumnLinear(loader, spec, heads),
      await WideRmsNorm.load(loader, { paths, width, split, epsilon }),
      ring,
      await loadRowLinear(loader, {
        path: `${path}.o`,
        inFeatures: width,
        outFeatures: width,
        outDtype: loader.context.plan.dtype,
      }),
    );
  }

  get inputDtype(): Tensor["dtype"] {
    return this.qkv.inputDtype;
  }

  /** h [tokens, width] -> [tokens, width / tp], before the output projection. */
  attend(h: Tensor, rope: Tensor, tokensOfRank: readonly number[]): Tensor {
    const qkv = this.qkv.forward(h); // [3, tokens, width / tp]
    const [, tokens = 0, columns = 0] = qkv.shape;
    const [q, k] = [partOf(qkv, 0), partOf(qkv, 1)];
    const kv = tensor(k.address, qkv.dtype, [2, tokens, columns]);
    const heads = columns / (rope.shape.at(-1) ?? 1);
    const { context, ring } = this;
    const queries = ring.queryDtype === "e4m3" ? allocateByHead(context.device, [tokens, columns], heads) : q;
    this.norm.forward([q, k], { rope, outs: [queries, k] });
    return ring.attend(queries, kv, tokensOfRank, { out: attentionOutput(context, this.o, queries, heads) });
  }
}

/** Attention of this rank's tokens to the whole text, whose keys and values are the same on every cp rank and do not travel. */
class CrossAttention {
  private constructor(
    private readonly context: Context,
    private readonly heads: number,
    /** Columns of q, k and v on this rank. */
    readonly columns: number,
    private readonly q: Linear,
    private readonly kv: Linear,
    private readonly normQ: WideRmsNorm,
    private readonly normK: WideRmsNorm,
    readonly o: ResidualLinear,
  ) {}

  static async load(loader: Loader, model: WanModel, path: string): Promise<CrossAttention> {
    const { width, heads, epsilon } = model;
    requirePair(loader, `${path}.q`, "heads", `${path}.o`);
    requirePair(loader, `${path}.k`, "heads", `${path}.o`);
    const linear = { inFeatures: width, outFeatures: width };
    const partPaths = [`${path}.k`, `${path}.v`];
    const kv = { path: `${path}.kv`, inFeatures: width, outFeatures: 2 * width, parts: 2, partPaths };
    const split = loader.splitOf(`${path}.q`) === "heads";
    const norm = (name: string) => WideRmsNorm.load(loader, { paths: [`${path}.${name}`], width, split, epsilon });
    const own = headsOf(loader, path, heads);
    return new CrossAttention(
      loader.context,
      own,
      (own * width) / heads,
      await loadColumnLinear(loader, { path: `${path}.q`, ...linear }, heads),
      await loadColumnLinear(loader, kv, heads),
      await norm("norm_q"),
      await norm("norm_k"),
      await loadRowLinear(loader, { path: `${path}.o`, ...linear }),
    );
  }

  embedText(text: Tensor, kv: Tensor): void {
    this.kv.forward(text, { out: kv });
    this.normK.forward([partOf(kv, 0)]);
  }

  get inputDtype(): Tensor["dtype"] {
    return this.q.inputDtype;
  }

  /** h [tokens, width] -> [tokens, columns], before the output projection. */
  attend(h: Tensor, text: Tensor): Tensor {
    const { device, plan } = this.context;
    const q = this.q.forward(h);
    this.normQ.forward([q]);
    const o = attentionOutput(this.context, this.o, q, this.heads);
    const kernel = attentionKernels[plan.attention.kernel];
    attention(device, o, q, [{ k: partOf(text, 0), v: partOf(text, 1), flag: 0 }], { heads: this.heads, kernel });
    return o;
  }
}
