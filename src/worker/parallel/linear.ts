import { DitrunError } from "../../protocol/failure.js";
import type { Split } from "../../protocol/plan.js";
import type { Context } from "../context.js";
import type { Device } from "../device/device.js";
import { cast, type GemmOptions, gemm, quantizeRows } from "../device/ops.js";
import { matrixShape, rowsOf, type Tensor, tensor, tensorBytes } from "../device/tensor.js";
import { rowSumSquares } from "../device/wan-ops.js";
import type { Init, Part, WeightSource } from "../weights/source.js";
import type { Precision } from "./precision.js";
import { rangeOf, shares } from "./split.js";

/** A linear layer y = x Wᵀ + b of a model, before it is divided. */
export interface LinearSpec {
  /** Module path, such as `blocks.3.attn.qkv`; parameters are `path.weight` and `path.bias`. */
  readonly path: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** 3 for a fused qkv: the output is [3, rows, width], each part split by heads on its own. */
  readonly parts?: number;
  /** Module paths of the parts, where the checkpoint stores each as a layer of its own (q, k and v). */
  readonly partPaths?: readonly string[];
  readonly bias?: boolean;
  /** Of the output, if it is not the plan's: what joins the residual stream or the image stays in float32. So is the bias, but float32 where the output is fp16. */
  readonly outDtype?: Tensor["dtype"];
  /** Stays in the plan's dtype where the plan's linear dtype is e4m3: the few products that are small or touch the pixels. */
  readonly keepDtype?: boolean;
  /** Weights, bias and output in float32 whatever the plan says. */
  readonly inFloat32?: boolean;
  /** Where the weights are e4m3, find out how large its outputs can be: `Linear.bound`. */
  readonly bounded?: boolean;
  /** The weight's shape in the checkpoint, if it is not [outFeatures, inFeatures]. */
  readonly storedShape?: readonly number[];
}

/** What every layer needs to load itself. */
export interface Loader {
  readonly context: Context;
  readonly source: WeightSource;
  splitOf(path: string): Split;
  /** If given, layers that are e4m3 by the plan keep their weights in the plan's dtype as well, and use those it asks for. */
  readonly precision?: Precision | undefined;
}

/** torch.nn.Linear's initialisation: weight and bias uniform in ±1/√inFeatures. */
const linearInit = (inFeatures: number): Init => ({ kind: "uniform", bound: inFeatures ** -0.5 });

/** No output of a layer for an input row x is larger than 448 (factor · ‖x‖ + term): 448 times a scale for e4m3 rows. */
interface Bound {
  readonly factor: number;
  readonly term: number;
}

/** The weights of this rank: w [n, k] or [parts, n, k]; e4m3 with row scales when the plan says so. */
interface LinearWeights {
  readonly w: Tensor;
  readonly bias?: Tensor | undefined;
  readonly outDtype: Tensor["dtype"];
  readonly bound?: Bound | undefined;
}

type ForwardOptions = Pick<GemmOptions, "activation" | "residual" | "gate">;

/** The product itself, with this rank's weights. An x that is not in their dtype yet is quantised here. */
function multiply(context: Context, x: Tensor, out: Tensor, { w }: LinearWeights, options: GemmOptions): void {
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

/** A layer whose output is added to the residual stream (float32), in place. */
export interface ResidualLinear {
  /** What x is multiplied as: whoever makes x may as well make it so. */
  readonly inputDtype: Tensor["dtype"];
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

  forward(x: Tensor): Tensor {
    const { device, tp } = this.context;
    const { w, bias, outDtype } = this.weights;
    const out = device.allocate(outDtype, [matrixShape(x).rows, w.shape[0] ?? 1]);
    tp.allReduce(this.#partial(x), { out, bias });
    return out;
  }

  addTo(residual: Tensor, x: Tensor, tokensOfRank?: readonly number[]): void {
    const { tp } = this.context;
    const partial = this.#partial(x);
    const target = { out: residual, base: residual, bias: this.weights.bias };
    if (tokensOfRank) tp.reduceScatter(partial, tokensOfRank, target);
    else tp.allReduce(partial, target);
  }

  /** The gate goes with the whole sum. */
  addGatedTo(residual: Tensor, x: Tensor, gate: Tensor): void {
    const target = { out: residual, base: residual, bias: this.weights.bias, gate };
    this.context.tp.allReduce(this.#partial(x), target);
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
  throw new DitrunError(`The plan splits ${first} ${a} and ${second} ${b}: it must be ${split} and row${replicated}.`);
}

/** @throws DitrunError when the weight cannot be divided over tp, or the checkpoint does not fit. */
export async function loadColumnLinear(loader: Loader, spec: LinearSpec, heads?: number): Promise<Linear> {
  const { context } = loader;
  const split = splitOfParts(loader, spec);
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
  const spec: LinearSpec = { outDtype: "fp32", ...rowSpec };
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

/** The split that all stored parts of a layer have. @throws DitrunError when the plan splits them differently. */
function splitOfParts(loader: Loader, spec: LinearSpec): Split {
  const [first = spec.path, ...others] = spec.partPaths ?? [];
  const split = loader.splitOf(first);
  const other = others.find((path) => loader.splitOf(path) !== split);
  if (other === undefined) return split;
  throw new DitrunError(
    `The plan splits ${first} ${split} and ${other} ${loader.splitOf(other)}: they are one product here, so give them the same split.`,
  );
}

/** What the checkpoint stores of a layer: its module path, its output features, and the rows of them in this part. */
function storedLayers({ path, outFeatures, partPaths }: LinearSpec, part: Part) {
  if (!partPaths) return [{ path, outFeatures, rows: part.rows }];
  const features = outFeatures / partPaths.length;
  return partPaths.map((partPath, index) => {
    const first = index * features;
    const rows = part.rows.flatMap(({ start, count }) => {
      const from = Math.max(start - first, 0);
      const to = Math.min(start + count - first, features);
      return to > from ? [{ start: from, count: to - from }] : [];
    });
    return { path: partPath, outFeatures: features, rows };
  });
}

/**
 * By Cauchy and Schwarz |w · x + b| <= max‖w‖ ‖x‖ + max|b|; rounding w and x to e4m3 makes each element at most 1/16 longer, and
 * 1 % is for the sums' own rounding. The term is never zero, so that a row of zeros has a scale.
 */
async function boundOf(device: Device, w: Tensor, bias: Tensor | undefined): Promise<Bound> {
  const { rows } = matrixShape(w);
  const largest = async (queue: (out: Tensor) => void) => {
    const address = device.kernels.create("malloc", tensorBytes("fp32", [rows]), 0);
    try {
      const out = tensor(address, "fp32", [rows]);
      queue(out);
      const values = new Float32Array((await device.download(out)).buffer);
      return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    } finally {
      device.kernels.call("free", address);
    }
  };
  const squares = await largest((out) => rowSumSquares(device, out, w));
  const offset = bias ? await largest((out) => cast(device, out, bias)) : 0;
  return { factor: (1.01 * (17 / 16) ** 2 * Math.sqrt(squares)) / 448, term: offset / 448 + 1e-15 };
}

async function loadWeights(loader: Loader, spec: LinearSpec, part: Part): Promise<LinearWeights> {
  const { context, source } = loader;
  const { device, plan } = context;
  const dtype = spec.inFloat32 ? "fp32" : plan.dtype;
  const rows = part.rows.reduce((sum, range) => sum + range.count, 0);
  const columns = part.columns.count;
  const parts = spec.parts ?? 1;
  const outDtype = spec.inFloat32 ? "fp32" : (spec.outDtype ?? plan.dtype);
  const shape = parts === 1 ? [rows, columns] : [parts, rows / parts, columns];
  const init = linearInit(spec.inFeatures);
  const stored = storedLayers(spec, part);

  /** Reads the weight into out [rows, columns], part after part. */
  const loadWeight = async (out: Tensor) => {
    let done = 0;
    for (const { path, outFeatures, rows: ranges } of stored) {
      const count = ranges.reduce((sum, range) => sum + range.count, 0);
      const parameter = { name: `${path}.weight`, shape: spec.storedShape ?? [outFeatures, spec.inFeatures], init };
      await source.load(parameter, { rows: ranges, columns: part.columns }, rowsOf(out, done, count));
      done += count;
    }
  };
  let bias: Tensor | undefined;
  if (spec.bias !== false) {
    bias = device.allocatePersistent(outDtype === "fp16" ? "fp32" : outDtype, [rows]);
    const column = tensor(bias.address, bias.dtype, [rows, 1]);
    let done = 0;
    for (const { path, outFeatures, rows: ranges } of stored) {
      const count = ranges.reduce((sum, range) => sum + range.count, 0);
      const parameter = { name: `${path}.bias`, shape: [outFeatures], init };
      await source.load(parameter, { rows: ranges, columns: { start: 0, count: 1 } }, rowsOf(column, done, count));
      done += count;
    }
  }
  if (plan.linear.dtype !== "e4m3" || spec.keepDtype || spec.inFloat32) {
    const w = device.allocatePersistent(dtype, shape);
    await loadWeight(tensor(w.address, w.dtype, [rows, columns]));
    return { w, bias, outDtype };
  }
  const staging = device.kernels.create("malloc", tensorBytes("fp32", [rows, columns]), 0);
  try {
    const exact = tensor(staging, "fp32", [rows, columns]);
    await loadWeight(exact);
    const w = { ...device.allocatePersistent("e4m3", shape), rowScale: device.allocatePersistent("fp32", [rows]) };
    quantizeRows(device, w, exact);
    const { precision } = loader;
    const plain = precision && device.allocatePersistent(dtype, shape);
    if (plain) cast(device, plain, exact);
    await device.synchronize();
    const bound = spec.bounded ? await boundOf(device, exact, bias) : undefined;
    if (!plain) return { w, bias, outDtype, bound };
    return {
      get w() {
        return precision.quantised ? w : plain;
      },
      bias,
      outDtype,
      get bound() {
        return precision.quantised ? bound : undefined;
      },
    };
  } finally {
    device.kernels.call("free", staging);
  }
}
