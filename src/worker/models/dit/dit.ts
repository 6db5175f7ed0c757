import { DitrunError } from "../../../failure.js";
import type { DitModel } from "../../../models/schema.js";
import { attentionDtype } from "../../../plan/schema.js";
import type { Context } from "../../comm/context.js";
import type { Attention } from "../../layers/attention/attention.js";
import { makeAttention } from "../../layers/attention/choose.js";
import {
  ColumnParallelLinear,
  type Linear,
  type LinearSpec,
  type Loader,
  loadColumnLinear,
  loadRowLinear,
  type ResidualLinear,
  requirePair,
} from "../../layers/linear.js";
import { Mlp } from "../../layers/mlp.js";
import { LayerNorm } from "../../layers/norm.js";
import {
  gatherColumnsTp,
  gatherTensorCp,
  partForColumnsTp,
  partForGatherCp,
  type Range,
  rangeOf,
  shares,
  splitTensorCp,
} from "../../layers/split.js";
import { copy } from "../../ops/copy.js";
import { activate, add, addRows } from "../../ops/elementwise.js";
import { type PatchGrid, patchify, sincos2d, sincosEmbedding, unpatchify } from "../../ops/embedding.js";
import { noTap, type Tap } from "../../runtime/tap.js";
import { matrixShape, partOf, rowsOf, type Tensor, tensor, tensorBytes } from "../../runtime/tensor.js";

/** Tokens of the model's patch grid. */
export function ditTokens({ imageSize, patch }: DitModel): number {
  return (imageSize / patch) ** 2;
}

/** Floating-point operations of one forward, all ranks together: 2 per multiply-add of the linears and of attention. */
export function ditFlops(model: DitModel): number {
  const tokens = ditTokens(model);
  const { width, depth, channels, patch } = model;
  const block = 2 * tokens * width * width * (3 + 1 + 4 + 4) + 4 * tokens * tokens * width;
  return depth * block + 2 * 2 * tokens * width * channels * patch * patch;
}

export interface DitInputs {
  /** float32 [channels, imageSize, imageSize]. */
  readonly image: Uint8Array;
  readonly t: number;
  /** Class; `classes` itself is the row for no class. */
  readonly y: number;
}

/**
 * The DiT benchmark model: tokens of an image's patches, plus position, plus (time + class); depth times
 * x += attn(norm(x)), x += mlp(norm(x)); norm, linear head, back to pixels. Tokens are split over cp from the patches to the
 * head's output; where norms are sequence-parallel, the residual stream is split over tp as well.
 */
export class Dit {
  readonly flops: number;
  /** float32 [channels, imageSize, imageSize], whole on every rank. */
  readonly output: Tensor;
  readonly #tokens: Range & { readonly tokensOfRank: readonly number[] };
  /** Rows of the residual stream of each tp rank, where norms are sequence-parallel. */
  readonly #shards: readonly number[] | undefined;

  private constructor(
    private readonly context: Context,
    private readonly model: DitModel,
    private readonly grid: PatchGrid,
    private readonly inputs: { image: Tensor; t: Tensor },
    private readonly embedding: Embedding,
    private readonly blocks: readonly Block[],
    private readonly norm: LayerNorm,
    private readonly head: Linear,
  ) {
    this.flops = ditFlops(model);
    this.output = context.device.allocatePersistent("fp32", [model.channels, model.imageSize, model.imageSize]);
    this.#tokens = splitTensorCp(context, ditTokens(model));
    this.#shards =
      context.plan.norms.sequenceParallel && context.tp.size > 1
        ? shares(this.#tokens.count, context.tp.size)
        : undefined;
  }

  /** @throws DitrunError when the plan does not fit the model, or the checkpoint does not. */
  static async load(loader: Loader, model: DitModel): Promise<Dit> {
    const { context } = loader;
    const { width, patch, channels, imageSize } = model;
    const grid = { channels, height: imageSize, width: imageSize, patch };
    const pixels = channels * patch * patch;
    const { device } = context;
    const inputs = {
      image: device.allocatePersistent("fp32", [channels, imageSize, imageSize]),
      t: device.allocatePersistent("fp32", [1]),
    };
    const embedding = await Embedding.load(loader, model, grid);
    const blocks: Block[] = [];
    const heads = loader.splitOf("blocks.0.attn.qkv") === "heads" ? model.heads / context.tp.size : model.heads;
    const attention = makeAttention(context, heads);
    for (let index = 0; index < model.depth; index++)
      blocks.push(await Block.load(loader, model, `blocks.${index}`, attention));
    const norm = await LayerNorm.load(loader, "norm", width);
    const head = await loadColumnLinear(loader, {
      path: "head",
      inFeatures: width,
      outFeatures: pixels,
      outDtype: "fp32",
      keepDtype: true,
    });
    return new Dit(context, model, grid, inputs, embedding, blocks, norm, head);
  }

  /** Copies the inputs to the device. @throws DitrunError when the class is out of range. */
  async setInputs({ image, t, y }: DitInputs): Promise<void> {
    const { device } = this.context;
    if (!Number.isInteger(y) || y < 0 || y > this.model.classes) {
      throw new DitrunError(
        "ERR_TENSOR_VALUE",
        `The class y is ${y}; ${this.model.name} has classes 0 to ${this.model.classes - 1}, and ${this.model.classes} for none.`,
      );
    }
    await device.upload(this.inputs.image, image);
    await device.upload(this.inputs.t, new Uint8Array(new Float32Array([t]).buffer));
    this.embedding.setLabel(y);
    await device.synchronize();
  }

  /** Tokens of the residual stream on this rank, and of all ranks. */
  get rows(): Range & { readonly total: number } {
    const total = ditTokens(this.model);
    const own = this.#shards && rangeOf(this.#shards, this.context.tp.rank);
    return own ? { start: this.#tokens.start + own.start, count: own.count, total } : { ...this.#tokens, total };
  }

  /** Queues one forward; the result is in `output`. @param tap is told of the residual stream after each layer. */
  forward(tap: Tap = noTap): void {
    const { context } = this;
    const { device } = context;
    device.arena.scope(() => {
      const embedded = this.embedding.forward(this.inputs.image, this.inputs.t, this.#tokens); // [tokens, width]
      const own = this.#shards && rangeOf(this.#shards, context.tp.rank);
      const x = own ? rowsOf(embedded, own.start, own.count) : embedded;
      tap("patch", x);
      this.blocks.forEach((block, index) => {
        device.span(`blocks.${index}`, () => block.forward(x, this.#tokens.tokensOfRank, this.#shards));
        tap(`blocks.${index}`, x);
      });
      const h = this.norm.forward(x, this.head.inputDtype, this.#shards); // [tokens, width]

      const { tokensOfRank } = this.#tokens;
      const pixels = this.grid.channels * this.grid.patch ** 2;
      const part = partForGatherCp(context, tokensOfRank, pixels, "fp32"); // [tokens, pixels]
      if (this.head instanceof ColumnParallelLinear) {
        const columns = partForColumnsTp(context, this.#tokens.count, pixels, "fp32");
        gatherColumnsTp(context, this.head.forward(h, { out: columns }), part);
      } else this.head.forward(h, { out: part });
      unpatchify(device, this.output, gatherTensorCp(context, part, tokensOfRank), this.grid, 0);
    });
  }

  /** Milliseconds that attention waited for the blocks of each ring step since the last call. */
  takeRingWaits(): Promise<number[]> {
    return this.blocks[0]?.attention.takeWaits() ?? Promise.resolve([]);
  }
}

/** x = patches · Wᵀ + position + (time MLP of t + class row). Under tp each rank computes some columns, gathered at the end. */
class Embedding {
  private constructor(
    private readonly context: Context,
    private readonly model: DitModel,
    private readonly grid: PatchGrid,
    /** The columns of the width that this rank computes. */
    private readonly columns: Range,
    private readonly patch: Linear,
    private readonly time: readonly [Linear, Linear],
    /** [classes + 1, columns] */
    private readonly table: Tensor,
    /** [1, columns], the row of the class at hand. */
    private readonly label: Tensor,
    /** [tokens, columns] */
    private readonly positions: Tensor,
  ) {}

  static async load(loader: Loader, model: DitModel, grid: PatchGrid): Promise<Embedding> {
    const { context, source } = loader;
    const { device, plan, tp } = context;
    const { width, patch, channels, classes } = model;
    const pixels = channels * patch * patch;
    const split = plan.embeddings.tensorParallel && tp.size > 1;
    if (split && width % tp.size !== 0) {
      throw new DitrunError(
        "ERR_PLAN_MESH",
        `The width of ${model.name} is ${width}, which tp ${tp.size} does not divide: set embeddings.tensorParallel to false.`,
      );
    }
    const columns = split ? rangeOf(shares(width, tp.size), tp.rank) : { start: 0, count: width };
    const embeddings: Loader = {
      ...loader,
      splitOf: (path) => (split && path !== "time.mlp.0" ? "column" : "replicated"),
    };
    const linear = (path: string, inFeatures: number, options: Partial<LinearSpec> = {}) =>
      loadColumnLinear(embeddings, { path, inFeatures, outFeatures: width, keepDtype: true, ...options });

    const storedShape = [width, channels, patch, patch];
    const patchLinear = await linear("patch.proj", pixels, { storedShape, outDtype: "fp32" });
    const time = [await linear("time.mlp.0", width), await linear("time.mlp.2", width, { outDtype: "fp32" })] as const;
    const table = device.allocatePersistent("fp32", [classes + 1, columns.count]);
    const parameter = {
      name: "label.table.weight",
      shape: [classes + 1, width],
      init: { kind: "normal", std: 1 } as const,
    };
    await source.load(parameter, { rows: [{ start: 0, count: classes + 1 }], columns }, table);

    const tokens = splitTensorCp(context, ditTokens(model));
    const positions = device.allocatePersistent("fp32", [tokens.count, columns.count]);
    const gridWidth = model.imageSize / patch;
    sincos2d(device, positions, { gridWidth, width, firstToken: tokens.start, firstColumn: columns.start });
    const label = device.allocatePersistent("fp32", [1, columns.count]);
    return new Embedding(context, model, grid, columns, patchLinear, time, table, label, positions);
  }

  setLabel(y: number): void {
    copy(this.context.device, this.label, rowsOf(this.table, y, 1), tensorBytes(this.label.dtype, this.label.shape));
  }

  /** image [channels, size, size], t [1] -> [tokens, width]. */
  forward(image: Tensor, t: Tensor, tokens: Range): Tensor {
    const { context, columns } = this;
    const { device, plan } = context;
    const { width, channels, patch } = this.model;
    const x = device.allocate("fp32", [tokens.count, width]);
    device.arena.scope(() => {
      const angles = device.allocate(plan.dtype, [1, width]);
      sincosEmbedding(device, angles, t);
      const hidden = this.time[0].forward(angles);
      activate(device, hidden, hidden, "silu");
      const condition = this.time[1].forward(hidden); // [1, columns]
      add(device, condition, condition, this.label);

      const patches = device.allocate(plan.dtype, [tokens.count, channels * patch * patch]);
      patchify(device, patches, image, this.grid, tokens.start);
      const whole = columns.count === width;
      const part = whole ? x : partForColumnsTp(context, tokens.count, width, "fp32");
      this.patch.forward(patches, { out: part });
      addRows(device, part, part, this.positions, condition);
      if (!whole) gatherColumnsTp(context, part, x);
    });
    return x;
  }
}

/** x += attn(norm(x)); x += mlp(norm(x)). */
class Block {
  private constructor(
    private readonly context: Context,
    private readonly norms: readonly [LayerNorm, LayerNorm],
    private readonly qkv: Linear,
    readonly attention: Attention,
    private readonly proj: ResidualLinear,
    private readonly mlp: Mlp,
  ) {}

  static async load(loader: Loader, model: DitModel, path: string, attention: Attention): Promise<Block> {
    const { width, heads } = model;
    requirePair(loader, `${path}.attn.qkv`, "heads", `${path}.attn.proj`);
    const linear = (name: string, inFeatures: number, outFeatures: number) => ({
      path: `${path}.${name}`,
      inFeatures,
      outFeatures,
    });
    const { plan } = loader.context;
    const qkvDtype = attentionDtype(plan) === "fp16" ? ({ outDtype: "fp16" } as const) : {};
    return new Block(
      loader.context,
      [await LayerNorm.load(loader, `${path}.n1`, width), await LayerNorm.load(loader, `${path}.n2`, width)],
      await loadColumnLinear(loader, { ...linear("attn.qkv", width, 3 * width), parts: 3, ...qkvDtype }, heads),
      attention,
      await loadRowLinear(loader, linear("attn.proj", width, width)),
      await Mlp.load(loader, "gelu", {
        up: linear("mlp.0", width, 4 * width),
        down: linear("mlp.2", 4 * width, width),
      }),
    );
  }

  /** x [tokens, width], this rank's rows of the residual stream, is updated in place. */
  forward(x: Tensor, tokensOfRank: readonly number[], shards: readonly number[] | undefined): void {
    const { arena } = this.context.device;
    arena.scope(() => {
      const qkv = this.qkv.forward(this.norms[0].forward(x, this.qkv.inputDtype, shards)); // [3, tokens, width / tp]
      const [, tokens = 0, width = 0] = qkv.shape;
      const kv = tensor(partOf(qkv, 1).address, qkv.dtype, [2, tokens, width]);
      const o = this.attention.attend(partOf(qkv, 0), kv, tokensOfRank); // [tokens, width / tp]
      this.proj.addTo(x, o, shards);
    });
    arena.scope(() => {
      // Where rows are gathered after the norm, they are quantised after that.
      const bound = shards ? undefined : this.mlp.boundOf(matrixShape(x).rows);
      const h = this.norms[1].forward(x, this.mlp.inputDtype, shards, bound);
      this.mlp.down.addTo(x, this.mlp.inside(h, bound), shards); // inside: [tokens, 4 width / tp]
    });
  }
}
