import type { Context } from "../comm/context.js";
import { type BoundOptions, layerNorm } from "../ops/norm.js";
import { matrixShape, type Tensor } from "../runtime/tensor.js";
import type { Loader } from "./linear.js";

/**
 * LayerNorm (eps 1e-5, affine) of the residual stream (float32), rounded to the plan's dtype. Where each tp rank holds only some rows of it (sequence-parallel
 * norms, arXiv 2205.05198 §4.2), the normalised rows are gathered, so that the result is whole on every rank.
 */
export class LayerNorm {
  private constructor(
    private readonly context: Context,
    private readonly weight: Tensor,
    private readonly bias: Tensor,
  ) {}

  static async load({ context, source }: Loader, path: string, width: number): Promise<LayerNorm> {
    const load = async (name: string, value: number) => {
      const out = context.device.allocatePersistent("fp32", [width]);
      const parameter = { name, shape: [width], init: { kind: "constant", value } as const };
      await source.load(parameter, { rows: [{ start: 0, count: width }], columns: { start: 0, count: 1 } }, out);
      return out;
    };
    return new LayerNorm(context, await load(`${path}.weight`, 1), await load(`${path}.bias`, 0));
  }

  /**
   * x [rows, width], this tp rank's rows if tokensOfRank is given -> [all rows, width] in this dtype, e4m3 with row scales. Rows
   * that are gathered travel in it. A bound only of e4m3 rows that are not gathered.
   */
  forward(x: Tensor, dtype: Tensor["dtype"], tokensOfRank?: readonly number[], bound?: BoundOptions): Tensor {
    const { device, tp } = this.context;
    const { rows, columns } = matrixShape(x);
    const normalise = (out: Tensor) =>
      layerNorm(device, out, x, { weight: this.weight, bias: this.bias, bound, epsilon: 1e-5 });
    if (!tokensOfRank) {
      const out = device.allocateMatrix(dtype, [rows, columns]);
      normalise(out);
      return out;
    }
    const out = device.allocateMatrix(dtype, [tokensOfRank.reduce((sum, rows) => sum + rows, 0), columns]);
    const part = tp.gatherPart(tokensOfRank, columns, dtype);
    normalise(part);
    tp.allGather(part, tokensOfRank, out);
    return out;
  }
}
