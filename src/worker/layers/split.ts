import type { Context } from "../comm/context.js";
import type { Group } from "../comm/group.js";
import { type Range, rangeOf, shares } from "../comm/shares.js";
import { copyRows } from "../ops/copy.js";
import type { Device } from "../runtime/device.js";
import { dtypeBytes, matrixShape, type Tensor } from "../runtime/tensor.js";

export { type Range, rangeOf, shares };

/** The tokens that this rank's part of the sequence holds, and every cp rank's count. */
export function splitTensorCp(context: Context, tokens: number): Range & { readonly tokensOfRank: readonly number[] } {
  const tokensOfRank = shares(tokens, context.cp.size);
  return { ...rangeOf(tokensOfRank, context.cp.rank), tokensOfRank };
}

/** Where a rank writes the rows that gatherTensorCp will collect: its part [tokens, columns]. */
export function partForGatherCp(
  context: Context,
  tokensOfRank: readonly number[],
  columns: number,
  dtype: Tensor["dtype"],
) {
  return context.cp.gatherPart(tokensOfRank, columns, dtype);
}

/** The whole sequence [Σ tokens, columns] on every cp rank, from each rank's part. */
export function gatherTensorCp(context: Context, part: Tensor, tokensOfRank: readonly number[]): Tensor {
  return gatherRows(context.device, context.cp, part, tokensOfRank);
}

/** [Σ rows, columns] on every rank of a group, from each rank's part, which the group's gatherPart made. */
export function gatherRows(device: Device, group: Group, part: Tensor, rowsOfRank: readonly number[]): Tensor {
  if (group.size === 1) return part;
  const total = rowsOfRank.reduce((sum, rows) => sum + rows, 0);
  const out = device.allocate(part.dtype, [total, matrixShape(part).columns]);
  group.allGather(part, rowsOfRank, out);
  return out;
}

/** Where a tp rank writes its columns [rows, columns / tp] of a matrix that gatherColumnsTp will put together. */
export function partForColumnsTp(context: Context, rows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
  const { tp } = context;
  return tp.gatherPart(tp.size === 1 ? [rows] : Array<number>(tp.size).fill(rows), columns / tp.size, dtype);
}

/** out [rows, columns] = the tp ranks' columns side by side. */
export function gatherColumnsTp(context: Context, part: Tensor, out: Tensor): void {
  const { tp, device } = context;
  const { rows, columns } = matrixShape(part);
  device.arena.scope(() => {
    const stacked = device.allocate(part.dtype, [tp.size * rows, columns]);
    tp.allGather(part, Array<number>(tp.size).fill(rows), stacked);
    const partBytes = columns * dtypeBytes(part.dtype);
    for (let rank = 0; rank < tp.size; rank++) {
      const destination = out.address + rank * partBytes;
      const source = stacked.address + rank * rows * partBytes;
      const pitch = tp.size * partBytes;
      const own = { address: source, pitch: partBytes };
      copyRows(device, { address: destination, pitch }, own, { rows, rowBytes: partBytes, phase: "communication" });
    }
  });
}
