import type { LayerRule } from "../../plan/schema.js";
import { attentionDtype, meshSize, type Plan, type Split, vaeDtype } from "../../plan/schema.js";
import { splitOf } from "../layer-rules.js";
import { Ledger } from "./ledger.js";
import { type Dtype, dtypeBytes, type GroupName, type Operation, type Work } from "./operation.js";

export type Transport = "peer" | "nccl";

/** What a rank runs on, as far as code asks for it. */
export interface Ground {
  /** What carries the messages of each group. */
  readonly transports: Readonly<Record<GroupName, Transport>>;
  /** Whether products take a scale for each row of a head of so many columns (worker/layers/linear.ts). */
  readonly scalesByHead: (headDim: number) => boolean;
}

/** Everything within one host, on a Hopper GPU. */
export const oneHost: Ground = {
  transports: { tp: "peer", ulysses: "peer", ring: "peer", cfg: "peer", world: "peer" },
  scalesByHead: (headDim) => headDim === 128,
};

/** A linear layer, as loading sees it (worker/layers/linear-weights.ts). */
export interface LinearOnPaper {
  readonly path: string;
  readonly inputs: number;
  readonly outputs: number;
  /** Of the bias; null where there is none. The plan's unless given. */
  readonly bias?: Dtype | null;
  /** The weight in the plan's dtype (`keep`), or in float32, whatever the plan's linear dtype is. */
  readonly held?: "keep" | "fp32";
  readonly bounded?: boolean;
  /** Undivided, or as this says, whatever the rules say. */
  readonly split?: Split;
}

/** Partials of which more is saved than this take two shots (worker/comm/shots.ts). */
const SECOND_SHOT_BYTES = 2 ** 20;

/** @param bytes of a partial. @param ranks of the sum. */
export function sumTakesTwoShots(bytes: number, ranks: number): boolean {
  return (ranks - 1) * (1 - 2 / ranks) * bytes > SECOND_SHOT_BYTES;
}

/** Keys of a block of e4m3 values, and the parts of the statistics before (ditrun.h). */
const FP8_KEYS = 128;
const STATISTICS_PARTS = 64;
const ATTENTION_WORKSPACE = 32 * 2 ** 20;

/**
 * A forward on paper: the busiest rank's work and memory, launch by launch, with nothing run. A family describes its forward by calls
 * that read like its layers (models/dit/walk.ts, models/wan/walk.ts); what layers allocate and send is written here, once.
 */
export class Walk {
  readonly memory = new Ledger();
  readonly #operations: Operation[] = [];
  #times = 1;
  #beside = false;
  readonly dtype: Dtype;
  readonly linearDtype: Dtype;
  readonly attention: Dtype;
  readonly vae: Dtype;

  constructor(
    readonly plan: Plan,
    private readonly rules: readonly LayerRule[],
    readonly ground: Ground = oneHost,
  ) {
    this.dtype = plan.dtype;
    this.linearDtype = plan.linear.dtype ?? plan.dtype;
    this.attention = attentionDtype(plan);
    this.vae = vaeDtype(plan);
  }

  get operations(): readonly Operation[] {
    return this.#operations;
  }

  get world(): number {
    return meshSize(this.plan.mesh);
  }

  /** The body, that often: blocks that are alike are walked once. */
  times(count: number, body: () => void): void {
    const before = this.#times;
    this.#times *= count;
    body();
    this.#times = before;
  }

  work(work: Work): void {
    this.#operations.push({ ...work, times: this.#times, beside: this.#beside });
  }

  /** Two bodies that are alike, at the same time. */
  twice(body: () => void): void {
    this.#beside = true;
    this.memory.beside(body, body);
    this.#beside = false;
  }

  pass(bytes: number): void {
    this.work({ kind: "pass", bytes });
  }

  /** A tensor that stays: of each of the blocks that are alike. */
  keep(count: number, dtype: Dtype = "fp32"): void {
    this.memory.keep(this.#times * count * dtypeBytes[dtype]);
  }

  /** A tensor of the forward. */
  take(count: number, dtype: Dtype): void {
    this.memory.take(count * dtypeBytes[dtype]);
  }

  /** The same of so many rows: e4m3 has a scale for each. */
  takeMatrix(rows: number, columns: number, dtype: Dtype, scales = rows): void {
    this.take(rows * columns, dtype);
    if (dtype === "e4m3") this.take(scales, "fp32");
  }

  /** How a layer is divided: by the plan's rules, else the family's. */
  splitOf(path: string): Split {
    return this.plan.mesh.tp === 1 ? "replicated" : splitOf(this.plan, this.rules, path);
  }

  /** Loads a layer. @returns its inputs, outputs and weight's dtype on this rank. */
  linear(layer: LinearOnPaper) {
    const { tp } = this.plan.mesh;
    const split = layer.split ?? this.splitOf(layer.path);
    const inputs = split === "row" ? layer.inputs / tp : layer.inputs;
    const outputs = split === "heads" || split === "column" ? layer.outputs / tp : layer.outputs;
    const dtype = layer.held === "fp32" ? "fp32" : layer.held === "keep" ? this.dtype : this.linearDtype;
    const bias = layer.bias === undefined ? (layer.held === "fp32" ? "fp32" : this.dtype) : layer.bias;
    if (bias !== null) this.keep(outputs, bias);
    this.keep(inputs * outputs, dtype);
    if (dtype === "e4m3") this.keep(outputs * (layer.bounded ? 2 : 1));
    return { inputs, outputs, dtype, summed: split === "row" };
  }

  /** x W of so many rows. @param written bytes of an output, with those of a residual that is read. */
  product(
    rows: number,
    { inputs, outputs, dtype }: { readonly inputs: number; readonly outputs: number; readonly dtype: Dtype },
    written: number,
    activated = false,
  ): void {
    const bytes = (rows * inputs + outputs * inputs) * dtypeBytes[dtype] + rows * outputs * written;
    this.work({
      ...{ kind: "product", rows, columns: outputs, inner: inputs, dtype, bytes },
      activated: activated ? rows * outputs : 0,
    });
  }

  /** Where x is not in the weight's dtype yet, it is quantised before the body's product. */
  quantised(x: Dtype, dtype: Dtype, rows: number, columns: number, product: () => void): void {
    this.memory.scope(() => {
      if (dtype === "e4m3" && x !== "e4m3") {
        this.takeMatrix(rows, columns, "e4m3");
        this.pass(rows * columns * (dtypeBytes[x] + 1));
      }
      product();
    });
  }

  /**
   * residual += x W: in the product where the layer is whole, else a sum over tp. @param x what the input is held in.
   * @param shardRows rows that this rank keeps, where norms are sequence-parallel.
   */
  addToResidual(rows: number, layer: ReturnType<Walk["linear"]>, x: Dtype, shardRows?: number): void {
    if (!layer.summed) {
      this.quantised(x, layer.dtype, rows, layer.inputs, () => this.product(rows, layer, 8));
      return;
    }
    const bytes = rows * layer.outputs * dtypeBytes[this.dtype];
    this.#partial(bytes);
    this.quantised(x, layer.dtype, rows, layer.inputs, () => this.product(rows, layer, dtypeBytes[this.dtype]));
    this.#sum(bytes, shardRows === undefined ? 1 : shardRows / rows);
  }

  /** A float32 sum of a number for each row, over tp. */
  sumOfRows(count: number): void {
    this.#partial(4 * count);
    this.take(count, "fp32");
    this.#sum(4 * count, 1);
  }

  #partial(bytes: number): void {
    if (this.ground.transports.tp === "peer") this.memory.block("tp/partial", bytes);
    else this.memory.take(bytes);
  }

  #sum(bytes: number, share: number): void {
    const ranks = this.plan.mesh.tp;
    const scattered = share < 1;
    if (this.ground.transports.tp === "nccl") {
      this.memory.scope(() => {
        const two = !scattered && sumTakesTwoShots(bytes, ranks);
        const part = two ? bytes / ranks : bytes * share;
        for (let other = 1; other < ranks; other++) this.memory.take(part);
        if (two) this.memory.take(part);
      });
    }
    this.work({ kind: "sum", group: "tp", bytes, ranks, scattered });
  }

  /** Each rank's part of what all will have: in its peer memory, else in the arena. */
  gatherPart(group: GroupName, ranks: number, bytes: number): void {
    if (ranks > 1 && this.ground.transports[group] === "peer") this.memory.block(`${group}/part`, bytes);
    else this.memory.take(bytes);
  }

  /** All parts, so many bytes together, on every rank. */
  gather(group: GroupName, ranks: number, bytes: number): void {
    if (ranks === 1) return;
    this.memory.take(bytes);
    this.work({ kind: "gather", group, bytes, ranks });
  }

  /**
   * Self-attention of a rank's tokens to all, with its ring (worker/layers/attention). @param q what the queries come in.
   * @param of tokens of this rank and of all, and this rank's heads.
   */
  ringAttention(
    of: { readonly tokens: number; readonly allTokens: number; readonly heads: number; readonly headDim: number },
    q: Dtype,
  ): void {
    const { tokens, allTokens, heads, headDim } = of;
    const columns = heads * headDim;
    const ranks = this.plan.mesh.cp;
    const nccl = ranks > 1 && this.ground.transports.ring === "nccl";
    this.memory.scope(() => {
      const message = this.attention === "e4m3" ? this.#quantisedMessage(of, q) : 2 * tokens * columns * dtypeBytes[q];
      if (ranks > 1 && !nccl) {
        for (const turn of [0, 1])
          for (let rank = 0; rank < ranks; rank++) this.memory.block(`ring/${turn}/${rank}`, message);
      }
      if (nccl) {
        for (let other = 1; other < ranks; other++) this.memory.take(message);
        this.take(tokens * columns, "fp32");
        this.take(tokens * heads, "fp32");
      }
      if (this.attention === "e4m3" && (ranks === 1 || nccl)) this.memory.take(ATTENTION_WORKSPACE);
      this.work({
        ...{ kind: "attention", heads, queries: tokens, keys: allTokens, headDim, dtype: this.attention },
        ...{ messageBytes: ranks === 1 ? 0 : message, ranks },
      });
    });
  }

  /** Keys and values in e4m3, and queries where they are not so yet. @returns the bytes of a rank's message. */
  #quantisedMessage(
    of: { readonly tokens: number; readonly heads: number; readonly headDim: number },
    q: Dtype,
  ): number {
    const { tokens, heads, headDim } = of;
    const columns = heads * headDim;
    const ranks = this.plan.mesh.cp;
    if (q !== "e4m3") {
      this.takeMatrix(tokens, columns, "e4m3", tokens * heads);
      this.pass(tokens * columns * (dtypeBytes[q] + 1));
    }
    const padded = Math.ceil(tokens / FP8_KEYS) * FP8_KEYS;
    const message = tokens * columns + columns * padded + (4 * heads * padded) / FP8_KEYS;
    this.memory.take(message);
    this.take(columns, "fp32");
    this.memory.scope(() => {
      this.gatherPart("ring", ranks, 8 * columns);
      this.memory.scope(() => this.take(STATISTICS_PARTS * 2 * columns, "fp32"));
      this.pass(2 * tokens * columns * dtypeBytes[this.dtype]);
      this.gather("ring", ranks, 8 * columns * ranks);
      this.pass(2 * tokens * columns * (dtypeBytes[this.dtype] + 1));
    });
    return message;
  }

  /** What attention writes for this layer: e4m3 where kernel and layer know it, else the plan's dtype (attention/output.ts). */
  attentionOutput(rows: number, heads: number, headDim: number, q: Dtype, layer: Dtype): Dtype {
    const { kernel } = this.plan.attention;
    const known = (q === "e4m3" || q === "bf16") && (kernel === "auto" || kernel === "sm90");
    const dtype = known && layer === "e4m3" && this.ground.scalesByHead(headDim) ? "e4m3" : this.dtype;
    this.takeMatrix(rows, heads * headDim, dtype, rows * heads);
    return dtype;
  }
}
