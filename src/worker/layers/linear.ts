import { DitrunError } from "../../failure.js";
import type { Split } from "../../plan/schema.js";
import type { Context } from "../comm/context.js";
import { type GemmOptions, gemm } from "../ops/gemm.js";
import { quantizeRows } from "../ops/quantize.js";
import { matrixShape, type Tensor } from "../runtime/tensor.js";
import {
  type Bound,
  type LinearSpec,
  type LinearWeights,
  type Loader,
  loadWeights,
  wholePart,
} from "./linear-weights.js";
import { rangeOf, shares } from "./split.js";

export type { LinearSpec, Loader } from "./linear-weights.js";

type ForwardOptions = Pick<GemmOptions, "activation" | "residual" | "gate">;

/** The product itself, with this rank's weights. An x that is not in their dtype yet is quantised here. */
function multiply(context: Context, x: Tensor, out: Tensor, weights: LinearWeights, options: GemmOptions): void {
  context.device.named(weights.path, () => multiplyBy(context, x, out, weights, options));
}

function multiplyBy(context: Context, x: Tensor, out: Tensor, { w }: LinearWeights, options: GemmOptions): void {
  const { device } = context;
  if (w.dtype !== "e4m3" || x.dtype === "e4m3") {
    gemm(device, out, x, w, options);
    return;
  }
  device.arena.scope(() => {
    const { rows, columns } = matrixShape(x);
    const quantized = device.allocateMatrix("e4m3", [rows, columns]);
    quantizeRows(device, quantized, x);
    gemm(device, out, quantized, w, options);
  });
}

/** As ditrun_gemm has it for aScaleColumns. */
function takesScalesBy({ device }: Context, { w }: LinearWeights, columns: number): boolean {
  const { module, computeCapability } = device.info;
  return w.dtype === "e4m3" && (module === "cpu" || (columns === 128 && computeCapability === "9.0"));
}

/** A layer whose output is added to the residual stream (float32), in place. */
export interface ResidualLinear {
  /** What x is multiplied as: whoever makes x may as well make it so. */
  readonly inputDtype: Tensor["dtype"];
  /** Whether x may be e4m3 with a scale for each so many columns of a row, instead of one for the row. */
  takesScalesBy(columns: number): boolean;
  /** y [rows, outFeatures] = x Wᵀ + b, whole on every rank. */
  forward(x: Tensor): Tensor;
  /** residual += x Wᵀ + b. With tokensOfRank, residual holds only this tp rank's rows of the tokens. */
  addTo(residual: Tensor, x: Tensor, tokensOfRank?: readonly number[]): void;
  /** residual += gate · (x Wᵀ + b), gate float32 [outFeatures]. */
  addGatedTo(residual: Tensor, x: Tensor, gate: Tensor): void;
}

/** The whole layer on every rank. Also what the parallel layers are at degree 1. */
export class Linear implements ResidualLinear {
  constructor(
    private readonly context: Context,
    private readonly weights: LinearWeights,
  ) {}

  get inputDtype(): Tensor["dtype"] {
    return this.weights.w.dtype;
  }

  takesScalesBy(columns: number): boolean {
    return takesScalesBy(this.context, this.weights, columns);
  }

  /** Of a layer loaded as `bounded`, while its weights are e4m3. */
  get bound(): Bound | undefined {
    return this.weights.bound;
  }

  /**
   * y [rows, outFeatures] (or [parts, rows, outFeatures / parts]) = gate · activation(x Wᵀ + b) + residual. With outScale (float32
   * [rows], from `bound`) y is e4m3 with these row scales, rounded once.
   */
  forward(x: Tensor, options: ForwardOptions & { out?: Tensor; outScale?: Tensor | undefined } = {}): Tensor {
    const { w, bias, outDtype } = this.weights;
    const { rows } = matrixShape(x);
    const { outScale } = options;
    const shape = w.shape.length === 3 ? [w.shape[0] ?? 1, rows, w.shape[1] ?? 1] : [rows, w.shape[0] ?? 1];
    const { device } = this.context;
    const out =
      options.out ??
      (outScale ? { ...device.allocate("e4m3", shape), rowScale: outScale } : device.allocate(outDtype, shape));
    multiply(this.context, x, out, this.weights, {
      bias,
      activation: options.activation ?? "identity",
      residual: options.residual,
      gate: options.gate,
    });
    return out;
  }

  addTo(residual: Tensor, x: Tensor): void {
    this.forward(x, { out: residual, residual });
  }

  /** In the product's epilogue, all of it in float32. */
  addGatedTo(residual: Tensor, x: Tensor, gate: Tensor): void {
    this.forward(x, { out: residual, residual, gate });
  }
}

/** Each tp rank holds some of the output features (whole heads, for a qkv): y is split, x is whole (arXiv 1909.08053, §3). */
export class ColumnParallelLinear extends Linear {}

/**
 * Each tp rank holds some of the input features: x is split, y is summed over tp (arXiv 1909.08053, §3). The bias and the
 * residual are added once. With tokensOfRank (sequence-parallel norms), each rank keeps only its rows of the sum.
 */
export class RowParallelLinear implements ResidualLinear {
  constructor(
    private readonly context: Context,
    private readonly weights: LinearWeights,
  ) {}

  get inputDtype(): Tensor["dtype"] {
    return this.weights.w.dtype;
  }

  takesScalesBy(columns: number): boolean {
    return takesScalesBy(this.context, this.weights, columns);
  }

  forward(x: Tensor): Tensor {
    const { device, tp } = this.context;
    const { w, bias, outDtype } = this.weights;
    const out = device.allocate(outDtype, [matrixShape(x).rows, w.shape[0] ?? 1]);
    device.named(this.weights.path, () => tp.allReduce(this.#partial(x), { out, bias }));
    return out;
  }

  addTo(residual: Tensor, x: Tensor, tokensOfRank?: readonly number[]): void {
    const { device, tp } = this.context;
    const target = { out: residual, base: residual, bias: this.weights.bias };
    device.named(this.weights.path, () => {
      const partial = this.#partial(x);
      if (tokensOfRank) tp.reduceScatter(partial, tokensOfRank, target);
      else tp.allReduce(partial, target);
    });
  }

  /** The gate goes with the whole sum. */
  addGatedTo(residual: Tensor, x: Tensor, gate: Tensor): void {
    const { device, tp } = this.context;
    const target = { out: residual, base: residual, bias: this.weights.bias, gate };
    device.named(this.weights.path, () => tp.allReduce(this.#partial(x), target));
  }

  /** This rank's share of the sum, rounded to the plan's dtype; the sum itself is in float32. */
  #partial(x: Tensor): Tensor {
    const { tp, plan } = this.context;
    const partial = tp.partial(matrixShape(x).rows, this.weights.w.shape[0] ?? 1, plan.dtype);
    multiply(this.context, x, partial, this.weights, {});
    return partial;
  }
}

/** Refuses a first layer whose split output the second cannot take, or the other way round. @throws DitrunError */
export function requirePair(
  { context, splitOf }: Loader,
  first: string,
  split: "heads" | "column",
  second: string,
): void {
  if (context.tp.size === 1) return;
  const [a, b] = [splitOf(first), splitOf(second)];
  if (
    (a === split && b === "row") ||
    (a === "replicated" && b === "replicated" && !context.plan.norms.sequenceParallel)
  )
    return;
  const replicated = context.plan.norms.sequenceParallel
    ? "; sequence-parallel norms need that"
    : ", or both replicated";
  throw new DitrunError(
    "ERR_PLAN_SPLIT",
    `The plan splits ${first} ${a} and ${second} ${b}: it must be ${split} and row${replicated}.`,
  );
}

/** @throws DitrunError when the weight cannot be divided over tp, or the checkpoint does not fit. */
export async function loadColumnLinear(loader: Loader, spec: LinearSpec, heads?: number): Promise<Linear> {
  const { context } = loader;
  const split = splitOfParts(loader, spec);
  if (split === "row")
    throw new DitrunError(
      "ERR_PLAN_SPLIT",
      `The plan splits ${spec.path} by row; it can be column, heads or replicated.`,
    );
  const parts = spec.parts ?? 1;
  const width = spec.outFeatures / parts;
  if (split === "replicated" || context.tp.size === 1) {
    return new Linear(context, await loadWeights(loader, spec, wholePart(spec)));
  }
  const units = split === "heads" ? heads : width;
  if (units === undefined)
    throw new DitrunError("ERR_PLAN_SPLIT", `The plan splits ${spec.path} by heads, but it has none.`);
  requireDivisible(spec.path, split === "heads" ? "heads" : "output features", units, context.tp.size);
  const own = rangeOf(shares(width, context.tp.size), context.tp.rank);
  const rows = Array.from({ length: parts }, (_, part) => ({ start: part * width + own.start, count: own.count }));
  const part = { rows, columns: { start: 0, count: spec.inFeatures } };
  return new ColumnParallelLinear(context, await loadWeights(loader, spec, part));
}

/** @throws DitrunError as loadColumnLinear. */
export async function loadRowLinear(loader: Loader, rowSpec: LinearSpec): Promise<ResidualLinear> {
  const { context } = loader;
  const spec: LinearSpec = { outDtype: "fp32", ...rowSpec };
  const split = loader.splitOf(spec.path);
  if (split === "column" || split === "heads") {
    throw new DitrunError("ERR_PLAN_SPLIT", `The plan splits ${spec.path} by ${split}; it can be row or replicated.`);
  }
  if (split === "replicated" || context.tp.size === 1) {
    return new Linear(context, await loadWeights(loader, spec, wholePart(spec)));
  }
  requireDivisible(spec.path, "input features", spec.inFeatures, context.tp.size);
  const own = rangeOf(shares(spec.inFeatures, context.tp.size), context.tp.rank);
  const part = { rows: [{ start: 0, count: spec.outFeatures }], columns: own };
  return new RowParallelLinear(context, await loadWeights(loader, spec, part));
}

function requireDivisible(path: string, what: string, count: number, tp: number): void {
  if (count % tp === 0) return;
  throw new DitrunError(
    "ERR_PLAN_MESH",
    `${path} has ${count} ${what}, which tp ${tp} does not divide: choose a tp that divides ${count}.`,
  );
}

/** The split that all stored parts of a layer have. @throws DitrunError when the plan splits them differently. */
function splitOfParts(loader: Loader, spec: LinearSpec): Split {
  const [first = spec.path, ...others] = spec.partPaths ?? [];
  const split = loader.splitOf(first);
  const other = others.find((path) => loader.splitOf(path) !== split);
  if (other === undefined) return split;
  throw new DitrunError(
    "ERR_PLAN_SPLIT",
    `The plan splits ${first} ${split} and ${other} ${loader.splitOf(other)}: they are one product here, so give them the same split.`,
  );
}
