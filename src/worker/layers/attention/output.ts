import type { Context } from "../../comm/context.js";
import { allocateByHead } from "../../ops/quantize.js";
import { matrixShape, type Tensor } from "../../runtime/tensor.js";
import type { ResidualLinear } from "../linear.js";

/**
 * Where attention of q [tokens, heads · headDim] writes what `layer` multiplies: e4m3 with a scale for each row of a head, where the
 * kernels of both know it, else a tensor of the plan's dtype, which the layer quantises itself if it has to. In the arena.
 */
export function attentionOutput({ device, plan }: Context, layer: ResidualLinear, q: Tensor, heads: number): Tensor {
  const { rows, columns } = matrixShape(q);
  const { kernel } = plan.attention;
  const written = (q.dtype === "e4m3" || q.dtype === "bf16") && (kernel === "auto" || kernel === "sm90");
  if (written && layer.takesScalesBy(columns / heads)) return allocateByHead(device, [rows, columns], heads);
  return device.allocate(plan.dtype, [rows, columns]);
}
