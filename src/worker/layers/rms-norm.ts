import type { Context } from "../comm/context.js";
import { rmsNorm, rowSumSquares } from "../ops/norm.js";
import { rowsOf, type Tensor } from "../runtime/tensor.js";
import { keepTensor } from "../weights/kept.js";
import type { Loader } from "./linear.js";
import { type Range, rangeOf, shares } from "./split.js";

/** RMSNorm's weight (float32), or some of its elements. */
export function loadNormWeight(loader: Loader, path: string, width: number, own?: Range): Promise<Tensor> {
  const { context, source } = loader;
  return keepTensor(loader, path, async () => {
    const rows = own ?? { start: 0, count: width };
    const weight = context.device.allocatePersistent("fp32", [rows.count]);
    const parameter = { name: `${path}.weight`, shape: [width], init: { kind: "constant", value: 1 } as const };
    await source.load(parameter, { rows: [rows], columns: { start: 0, count: 1 } }, weight);
    return weight;
  });
}

/** RMSNorm over the whole width of tensors of which each tp rank may hold only some columns (whole heads). */
export class WideRmsNorm {
  private constructor(
    private readonly context: Context,
    private readonly width: number,
    private readonly split: boolean,
    /** This rank's columns of each weight, float32. */
    private readonly weights: readonly Tensor[],
    private readonly epsilon: number,
  ) {}

  /** @param split whether the tensors are divided over tp. One weight for each tensor that `forward` will be given. */
  static async load(
    loader: Loader,
    spec: {
      readonly paths: readonly string[];
      readonly width: number;
      readonly split: boolean;
      readonly epsilon: number;
    },
  ): Promise<WideRmsNorm> {
    const { tp } = loader.context;
    const split = spec.split && tp.size > 1;
    const own = split ? rangeOf(shares(spec.width, tp.size), tp.rank) : undefined;
    const weights: Tensor[] = [];
    for (const path of spec.paths) weights.push(await loadNormWeight(loader, path, spec.width, own));
    return new WideRmsNorm(loader.context, spec.width, split, weights, spec.epsilon);
  }

  /**
   * Normalises each tensor [rows, columns] in place, or to its place in outs, and turns its heads by the rotary table
   * [rows, headDim] if given. Under tp the sums of squares of all of them cross the group in one float32 sum.
   */
  forward(tensors: readonly Tensor[], { rope, outs }: { rope?: Tensor; outs?: readonly Tensor[] } = {}): void {
    const { device } = this.context;
    device.arena.scope(() => {
      const sums = this.split ? this.#sumSquares(tensors) : undefined;
      tensors.forEach((x, index) => {
        const own = sums && { sums: rowsOf(sums, index, 1), fullColumns: this.width };
        rmsNorm(device, outs?.[index] ?? x, x, {
          weight: this.weights[index],
          rope,
          sumSquares: own,
          epsilon: this.epsilon,
        });
      });
    });
  }

  /** float32 [tensors, rows]: Σ x² over the whole width. */
  #sumSquares(tensors: readonly Tensor[]): Tensor {
    const { device, tp } = this.context;
    const rows = tensors[0]?.shape.at(-2) ?? 1;
    const partial = tp.partial(tensors.length, rows, "fp32");
    tensors.forEach((x, index) => {
      rowSumSquares(device, rowsOf(partial, index, 1), x);
    });
    const sums = device.allocate("fp32", [tensors.length, rows]);
    tp.allReduce(partial, { out: sums });
    return sums;
  }
}
