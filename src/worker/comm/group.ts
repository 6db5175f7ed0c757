import type { SumTarget } from "../ops/peer.js";
import type { Tensor } from "../runtime/tensor.js";

export type { SumTarget };

/**
 * The ranks along one axis of the mesh and what they do together. Everything is queued on the compute stream, in the same
 * order on every rank of the group. Sums run in rank order in float32, and every rank gets the same bits.
 */
export interface Group {
  readonly rank: number;
  readonly size: number;
  /** A tensor [rows, columns] for this rank to write its part of the next allReduce or reduceScatter to. */
  partial(rows: number, columns: number, dtype: Tensor["dtype"]): Tensor;
  /** Sums what every rank wrote to its `partial`. Consumes the partial. */
  allReduce(partial: Tensor, target: SumTarget): void;
  /** The same sum, of which this rank keeps rows start … start + target rows. Consumes the partial. */
  reduceScatter(partial: Tensor, rowsOfRank: readonly number[], target: SumTarget): void;
  /** A tensor [rows, columns] for this rank to write its part of the next allGather to; e4m3 comes with its row scales. */
  gatherPart(rowsOfRank: readonly number[], columns: number, dtype: Tensor["dtype"]): Tensor;
  /** Every rank's part, one below the other in rank order, into out [Σ rows, columns], row scales as well. Consumes the part. */
  allGather(part: Tensor, rowsOfRank: readonly number[], out: Tensor): void;
  /** Holds the stream until every rank of the group has come to this point of its stream. */
  barrier(): void;
}
