import type { SumTarget } from "../ops/peer.js";
import type { Tensor } from "../runtime/tensor.js";
import type { HaloExchange } from "./halo.js";
import type { Ring } from "./ring.js";

export type { SumTarget };

/**
 * The ranks along one axis of the mesh and what they do together. Everything is queued on the compute stream, in the same
 * order on every rank of the group; the host waits for nothing, and no argument changes from call to call, so all of it may be
 * captured. Sums run in rank order in float32, and every rank gets the same bits.
 */
export interface Group {
  readonly rank: number;
  readonly size: number;
  /** What carries its messages, for people. */
  readonly transport: "peer" | "nccl" | "solo";
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
  /**
   * Every rank gives each rank of the group a part: parts[r] of this rank arrives in outs[this rank] of rank r. Parts and outs are
   * matrices [rows, columns] whose rows may be strided, one for each rank in rank order, of any sizes, none as well; what one
   * rank gives is of the size and dtype that the other takes. Row scales do not travel.
   * What is queued next may read the outs and overwrite the parts; parts and outs must not overlap.
   * Each rank sends Σ bytes of the parts for others and receives Σ bytes of the outs from others, once each over the links.
   * @throws RangeError when there is not one part and one out for each rank, or this rank's own two differ.
   */
  allToAll(parts: readonly Tensor[], outs: readonly Tensor[]): void;
  /** Rounds of messages between all ranks. Rings of one group share their memory: all ranks use them in the same order. */
  ring(): Ring;
  /** Exchanges of boundary rows between neighbouring ranks. Reserves peer memory: make it on every rank alike. */
  halo(): HaloExchange;
  /** Holds the stream until every rank of the group has come to this point of its stream. */
  barrier(): void;
  /** The transport's own all-reduce, where it has one: x becomes the sum of every rank's x, each addition rounded to x's dtype. What others' sums are compared with. */
  sumInPlace?(x: Tensor): void;
  /** Gives back what the group holds, once all its work has ended. */
  close(): void;
}
