import type { GemmOptions } from "../ops/gemm.js";
import type { BoundOptions } from "../ops/norm.js";
import type { Device } from "../runtime/device.js";
import type { Tensor } from "../runtime/tensor.js";
import {
  type Linear,
  type LinearSpec,
  type Loader,
  loadColumnLinear,
  loadRowLinear,
  type ResidualLinear,
  requirePair,
} from "./linear.js";

/**
 * A feed-forward net: `up`, split over tp by columns, an activation, and `down`, split by rows (arXiv 1909.08053, §3). Where both are
 * e4m3, `up` writes its outputs so. Its row scales have to be known before it: they are made of the norms of its input rows
 * (Linear.bound; no activation here makes a number larger), so no kernel has to look for the largest output.
 */
export class Mlp {
  private constructor(
    private readonly device: Device,
    private readonly activation: NonNullable<GemmOptions["activation"]>,
    private readonly up: Linear,
    readonly down: ResidualLinear,
  ) {}

  /** @throws DitrunError when the plan's splits of the two do not fit together. */
  static async load(
    loader: Loader,
    activation: NonNullable<GemmOptions["activation"]>,
    { up, down }: { readonly up: LinearSpec; readonly down: LinearSpec },
  ): Promise<Mlp> {
    requirePair(loader, up.path, "column", down.path);
    return new Mlp(
      loader.context.device,
      activation,
      await loadColumnLinear(loader, { ...up, bounded: true }),
      await loadRowLinear(loader, down),
    );
  }

  /** What its input is multiplied as: whoever makes it may as well make it so. */
  get inputDtype(): Tensor["dtype"] {
    return this.up.inputDtype;
  }

  /** What the norm that makes so many e4m3 rows of input should write for `inside`; undefined where that has no use for it. */
  boundOf(rows: number): BoundOptions | undefined {
    const bound = this.down.inputDtype === "e4m3" ? this.up.bound : undefined;
    return bound && { ...bound, out: this.device.allocate("fp32", [rows]) };
  }

  /** x [rows, inFeatures] -> `down`'s input [rows, hidden / tp]; in e4m3 if the bound of x is given. */
  inside(x: Tensor, bound?: BoundOptions): Tensor {
    return this.up.forward(x, { activation: this.activation, outScale: bound?.out });
  }
}
