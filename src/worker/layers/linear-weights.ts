import type { Split } from "../../plan/schema.js";
import type { Context } from "../comm/context.js";
import type { Device } from "../runtime/device.js";
import { rowsOf, type Tensor, tensor } from "../runtime/tensor.js";
import { type KeptWeights, keep, type LoadedPart, needed } from "../weights/kept.js";
import { largest } from "../weights/largest.js";
import type { Init, Part, WeightSource } from "../weights/source.js";
import type { Precision } from "./precision.js";

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
  /** Where weights are kept from one instance of the layers to the next. */
  readonly kept?: KeptWeights | undefined;
  /** If given, layers that are e4m3 by the plan keep their weights in the plan's dtype as well, and use those it asks for. */
  readonly precision?: Precision | undefined;
}

/** torch.nn.Linear's initialisation: weight and bias uniform in ±1/√inFeatures. */
const linearInit = (inFeatures: number): Init => ({ kind: "uniform", bound: inFeatures ** -0.5 });

/** No output of a layer for an input row x is larger than 448 (factor · ‖x‖ + term): 448 times a scale for e4m3 rows. */
export interface Bound {
  readonly factor: number;
  readonly term: number;
}

/** The weights of this rank: w [n, k] or [parts, n, k]; e4m3 with row scales when the plan says so. */
export interface LinearWeights {
  /** Module path of the layer. */
  readonly path: string;
  readonly w: Tensor;
  readonly bias?: Tensor | undefined;
  readonly outDtype: Tensor["dtype"];
  readonly bound?: Bound | undefined;
}

/** The layer undivided. */
export const wholePart = (spec: LinearSpec): Part => ({
  rows: [{ start: 0, count: spec.outFeatures }],
  columns: { start: 0, count: spec.inFeatures },
});

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
 * @param squares float32: the sums of squares of the rows of w.
 */
async function boundOf(device: Device, squares: Tensor, bias: Tensor | undefined): Promise<Bound> {
  const most = await largest(device, squares);
  const offset = bias ? await largest(device, bias) : 0;
  return { factor: (1.01 * (17 / 16) ** 2 * Math.sqrt(most)) / 448, term: offset / 448 + 1e-15 };
}

/** @throws DitrunError when the checkpoint does not fit. */
export async function loadWeights(loader: Loader, spec: LinearSpec, part: Part): Promise<LinearWeights> {
  const { context, precision } = loader;
  const { plan } = context;
  const outDtype = spec.inFloat32 ? "fp32" : (spec.outDtype ?? plan.dtype);
  const { tensors, numbers } = await keep(loader, spec.path, () => loadParts(loader, spec, part, outDtype));
  const { bias, plain } = tensors;
  const w = needed(tensors, "w");
  const { path } = spec;
  const boundIfThere = (): Bound | undefined => {
    const [factor, term] = numbers ?? [];
    return factor !== undefined && term !== undefined ? { factor, term } : undefined;
  };
  return {
    path,
    get w() {
      return plain && precision && !precision.quantised ? plain : w;
    },
    bias,
    outDtype,
    get bound() {
      return plain && precision && !precision.quantised ? undefined : boundIfThere();
    },
  };
}

/** Loads w, bias, and where both precisions are wanted `plain`, w in the plan's dtype; the numbers are a bound's. */
async function loadParts(loader: Loader, spec: LinearSpec, part: Part, outDtype: Tensor["dtype"]): Promise<LoadedPart> {
  const { context, source } = loader;
  const { device, plan } = context;
  const dtype = spec.inFloat32 ? "fp32" : plan.dtype;
  const rows = part.rows.reduce((sum, range) => sum + range.count, 0);
  const columns = part.columns.count;
  const parts = spec.parts ?? 1;
  const shape = parts === 1 ? [rows, columns] : [parts, rows / parts, columns];
  const init = linearInit(spec.inFeatures);
  const stored = storedLayers(spec, part);

  /** Begins to load the parameters of this name of all parts into out, one below the other. */
  const loadAll = async (name: "weight" | "bias", out: Tensor, squares?: Tensor) => {
    const isWeight = name === "weight";
    let done = 0;
    for (const { path, outFeatures, rows: ranges } of stored) {
      const count = ranges.reduce((sum, range) => sum + range.count, 0);
      const shape = isWeight ? (spec.storedShape ?? [outFeatures, spec.inFeatures]) : [outFeatures];
      const ofPart = { rows: ranges, columns: isWeight ? part.columns : { start: 0, count: 1 } };
      const own = { squares: squares && rowsOf(squares, done, count) };
      await source.load({ name: `${path}.${name}`, shape, init }, ofPart, rowsOf(out, done, count), own);
      done += count;
    }
  };
  let bias: Tensor | undefined;
  if (spec.bias !== false) {
    bias = device.allocatePersistent(outDtype === "fp16" ? "fp32" : outDtype, [rows]);
    await loadAll("bias", tensor(bias.address, bias.dtype, [rows, 1]));
  }
  const loadAs = async (dtype: Tensor["dtype"], squares?: Tensor) => {
    const plainTensor = device.allocatePersistent(dtype, shape);
    const w = dtype === "e4m3" ? { ...plainTensor, rowScale: device.allocatePersistent("fp32", [rows]) } : plainTensor;
    await loadAll("weight", { ...w, shape: [rows, columns] }, squares);
    return w;
  };
  if (plan.linear.dtype !== "e4m3" || spec.keepDtype || spec.inFloat32) {
    return { tensors: { w: await loadAs(dtype), ...(bias && { bias }) } };
  }
  const squares = spec.bounded ? device.allocatePersistent("fp32", [rows, 1]) : undefined;
  const w = await loadAs("e4m3", squares);
  const plain = loader.precision && (await loadAs(dtype));
  const numbers: number[] = [];
  if (squares) {
    await device.reader.after(async () => {
      const { factor, term } = await boundOf(device, squares, bias);
      numbers.push(factor, term);
    });
  }
  return { tensors: { w, ...(bias && { bias }), ...(plain && { plain }) }, numbers };
}
