import type { Context } from "../comm/context.js";
import { copyRows } from "../ops/copy.js";
import { dtypeBytes, matrixShape, type Tensor } from "../runtime/tensor.js";

/** A half-open range of indices. */
export interface Range {
  readonly start: number;
  readonly count: number;
}

type CpContext = Pick<Context, "cp" | "device">;

/** How many of `total` each of `ranks` ranks holds: in order, blocks that differ by one at most. */
export function shares(total: number, ranks: number): number[] {
  return Array.from(
    { length: ranks },
    (_, rank) => Math.floor(((rank + 1) * total) / ranks) - Math.floor((rank * total) / ranks),
  );
}

/** The range of rank `rank` among `shares`. */
export function rangeOf(sharesOfRank: readonly number[], rank: number): Range {
  const start = sharesOfRank.slice(0, rank).reduce((sum, count) => sum + count, 0);
  return { start, count: sharesOfRank[rank] ?? 0 };
}

/** The tokens that this rank's part of the sequence holds, and every cp rank's count. */
export function splitTensorCp(context: Context, tokens: number): Range & { readonly tokensOfRank: readonly number[] } {
  const tokensOfRank = shares(tokens, context.cp.size);
  return { ...rangeOf(tokensOfRank, context.cp.rank), tokensOfRank };
}

/** Where a rank writes the rows that gatherTensorCp will collect: its part [tokens, columns]. */
export function partForGatherCp(
  context: CpContext,
  tokensOfRank: readonly number[],
  columns: number,
  dtype: Tensor["dtype"],
) {
  return context.cp.gatherPart(tokensOfRank, columns, dtype);
}

/** The whole sequence [Σ tokens, columns] on every cp rank, from each rank's part. */
export function gatherTensorCp(context: CpContext, part: Tensor, tokensOfRank: readonly number[]): Tensor {
  if (context.cp.size === 1) return part;
  const total = tokensOfRank.reduce((sum, tokens) => sum + tokens, 0);
  const out = context.device.allocate(part.dtype, [total, matrixShape(part).columns]);
  context.cp.allGather(part, tokensOfRank, out);
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
