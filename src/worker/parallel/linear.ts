import { DitrunError } from "../../protocol/failure.js";
import type { Split } from "../../protocol/plan.js";
import type { Context } from "../context.js";
import { type GemmOptions, gemm, quantizeRows } from "../device/ops.js";
import { matrixShape, type Tensor, tensor, tensorBytes } from "../device/tensor.js";
import type { Init, Parameter, Part, WeightSource } from "../weights/source.js";
import { rangeOf, shares } from "./split.js";

/** A linear layer y = x Wᵀ + b of a model, before it is divided. */
export interface LinearSpec {
  /** Module path, such as `blocks.3.attn.qkv`; parameters are `path.weight` and `path.bias`. */
  readonly path: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** 3 for a fused qkv: the output is [3, rows, width], each part split by heads on its own. */
  readonly parts?: number;
  readonly bias?: boolean;
  /** Of the output and the bias, if it is not the plan's: what joins the residual stream or the image stays in float32. */
  readonly outDtype?: Tensor["dtype"];
  /** Stays in the plan's dtype where the plan's linear dtype is e4m3: the few products that are small or touch the pixels. */
  readonly keepDtype?: boolean;
  /** The weight's shape in the checkpoint, if it is not [outFeatures, inFeatures]. */
  readonly storedShape?: readonly number[];
}

/** What every layer needs to load itself. */
export interface Loader {
  readonly context: Context;
  readonly source: WeightSource;
  splitOf(path: string): Split;
}

/** torch.nn.Linear's initialisation: weight and bias uniform in ±1/√inFeatures. */
const linearInit = (inFeatures: number): Init => ({ kind: "uniform", bound: inFeatures ** -0.5 });

/** The weights of this rank: w [n, k] or [parts, n, k]; e4m3 with one scale per row when the plan says so. */
interface LinearWeights {
  readonly w: Tensor;
  readonly wScale?: Tensor | undefined;
  readonly bias?: Tensor | undefined;
  readonly outDtype: Tensor["dtype"];
}

type ForwardOptions = Pick<GemmOptions, "activation" | "residual">;

/** The product itself, with this rank's weights. */
function multiply(context: Context, x: Tensor, out: Tensor, weights: LinearWeights, options: GemmOptions): void {
  const { device } = context;
  const { w, wScale } = weights;
  if (!wScale) {
    gemm(device, out, x, w, options);
    return;
  }
  device.arena.scope(() => {
    const { rows, columns } = matrixShape(x);
    const quantized = device.allocate("e4m3", [rows, columns]);
    const aScale = device.allocate("fp32", [rows]);
    quantizeRows(device, quantized, aScale, x);
    gemm(device, out, quantized, w, { ...options, aScale, wScale });
  });
}

/** A layer whose output is added to the residual stream (float32), in place. */
export interface ResidualLinear {
  /** residual += x Wᵀ + b. With tokensOfRank, residual holds only this tp rank's rows of the tokens. */
  addTo(residual: Tensor, x: Tensor, tokensOfRank?: readonly number[]): void;
}

/** The whole layer on every rank. Also what the parallel layers are at degree 1. */
export class Linear implements ResidualLinear {
  constructor(
    private readonly context: Context,
    private readonly weights: LinearWeights,
  ) {}

  /** y [rows, outFeatures] (or [parts, rows, outFeatures / parts]) = activation(x Wᵀ + b) + residual. */
  forward(x: Tensor, options: ForwardOptions & { out?: Tensor } = {}): Tensor {
    const { w, bias } = this.weights;
    const { rows } = matrixShape(x);
    const shape = w.shape.length === 3 ? [w.shape[0] ?? 1, rows, w.shape[1] ?? 1] : [rows, w.shape[0] ?? 1];
    const out = options.out ?? this.context.device.allocate(this.weights.outDtype, shape);
    multiply(this.context, x, out, this.weights, {
      bias,
      activation: options.activation ?? "identity",
      residual: options.residual,
    });
    return out;
  }

  addTo(residual: Tensor, x: Tensor): void {
    this.forward(x, { out: residual, residual });
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

  addTo(residual: Tensor, x: Tensor, tokensOfRank?: readonly number[]): void {
    const { tp, plan } = this.context;
    // Rounded to the plan's dtype before the sum, which is in float32.
    const partial = tp.partial(matrixShape(x).rows, matrixShape(residual).columns, plan.dtype);
    multiply(this.context, x, partial, this.weights, {});
    const target = { out: residual, base: residual, bias: this.weights.bias };
    if (tokensOfRank) tp.reduceScatter(partial, tokensOfRank, target);
    else tp.allReduce(partial, target);
  }
}

/** @throws DitrunError when the weight cannot be divided over tp, or the checkpoint does not fit. */
export async function loadColumnLinear(loader: Loader, spec: LinearSpec, heads?: number): Promise<Linear> {
  const { context } = loader;
  const split = loader.splitOf(spec.path);
  if (split === "row")
    throw new DitrunError(`The plan splits ${spec.path} by row; it can be column, heads or replicated.`);
  const parts = spec.parts ?? 1;
  const width = spec.outFeatures / parts;
  if (split === "replicated" || context.tp.size === 1) {
    return new Linear(context, await loadWeights(loader, spec, wholePart(spec)));
  }
  const units = split === "heads" ? heads : width;
  if (units === undefined) throw new DitrunError(`The plan splits ${spec.path} by heads, but it has none.`);
  requireDivisible(spec.path, split === "heads" ? "heads" : "output features", units, context.tp.size);
  const own = rangeOf(shares(width, context.tp.size), context.tp.rank);
  const rows = Array.from({ length: parts }, (_, part) => ({ start: part * width + own.start, count: own.count }));
  const part = { rows, columns: { start: 0, count: spec.inFeatures } };
  return new ColumnParallelLinear(context, await loadWeights(loader, spec, part));
}

/** @throws DitrunError as loadColumnLinear. */
export async function loadRowLinear(loader: Loader, rowSpec: LinearSpec): Promise<ResidualLinear> {
  const { context } = loader;
  const spec: LinearSpec = { ...rowSpec, outDtype: "fp32" };
  const split = loader.splitOf(spec.path);
  if (split === "column" || split === "heads") {
    throw new DitrunError(`The plan splits ${spec.path} by ${split}; it can be row or replicated.`);
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
    `${path} has ${count} ${what}, which tp ${tp} does not divide: choose a tp that divides ${count}.`,
  );
}

const wholePart = (spec: LinearSpec): Part => ({
  rows: [{ start: 0, count: spec.outFeatures }],
  columns: { start: 0, count: spec.inFeatures },
});

async function loadWeights(loader: Loader, spec: LinearSpec, part: Part): Promise<LinearWeights> {
  const { context, source } = loader;
  const { device, plan } = context;
  const rows = part.rows.reduce((sum, range) => sum + range.count, 0);
  const columns = part.columns.count;
  const parts = spec.parts ?? 1;
  const outDtype = spec.outDtype ?? plan.dtype;
  const shape = parts === 1 ? [rows, columns] : [parts, rows / parts, columns];
  const weight: Parameter = {
    name: `${spec.path}.weight`,
    shape: spec.storedShape ?? [spec.outFeatures, spec.inFeatures],
    init: linearInit(spec.inFeatures),
  };

  let bias: Tensor | undefined;
  if (spec.bias !== false) {
    bias = device.allocatePersistent(outDtype, [rows]);
    const parameter = { name: `${spec.path}.bias`, shape: [spec.outFeatures], init: linearInit(spec.inFeatures) };
    await source.load(parameter, { rows: part.rows, columns: { start: 0, count: 1 } }, bias);
  }
  if (plan.linear.dtype !== "e4m3" || spec.keepDtype) {
    const w = device.allocatePersistent(plan.dtype, shape);
    await source.load(weight, part, tensor(w.address, w.dtype, [rows, columns]));
    return { w, bias, outDtype };
  }
  const staging = device.kernels.create("malloc", tensorBytes("fp32", [rows, columns]), 0);
  try {
    const exact = tensor(staging, "fp32", [rows, columns]);
    await source.load(weight, part, exact);
    const w = device.allocatePersistent("e4m3", shape);
    const wScale = device.allocatePersistent("fp32", [rows]);
    quantizeRows(device, w, wScale, exact);
    await device.synchronize();
    return { w, wScale, bias, outDtype };
  } finally {
    device.kernels.call("free", staging);
  }
}
