import { copy, copyMatrix } from "../../ops/copy.js";
import { sumOf } from "../../ops/peer.js";
import type { Device } from "../../runtime/device.js";
import { type Tensor, tensorBytes } from "../../runtime/tensor.js";
import { exchangesOf } from "../all-to-all.js";
import type { Group, SumTarget } from "../group.js";
import type { HaloExchange } from "../halo.js";
import type { Ring } from "../ring.js";

/** The group of one rank: nothing travels. */
export class SoloGroup implements Group {
  readonly transport = "solo";
  readonly rank = 0;
  readonly size = 1;

  constructor(private readonly device: Device) {}

  partial(rows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.device.allocate(dtype, [rows, columns]);
  }

  gatherPart(rowsOfRank: readonly number[], columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.device.allocateMatrix(dtype, [rowsOfRank[0] ?? 0, columns]);
  }

  allReduce(partial: Tensor, target: SumTarget): void {
    sumOf(this.device, [partial.address], partial.dtype, target);
  }

  reduceScatter(partial: Tensor, _rowsOfRank: readonly number[], target: SumTarget): void {
    this.allReduce(partial, target);
  }

  allGather(part: Tensor, rowsOfRank: readonly number[], out: Tensor): void {
    copy(this.device, out, part, tensorBytes(part.dtype, part.shape));
    if (part.rowScale && out.rowScale) this.allGather(part.rowScale, rowsOfRank, out.rowScale);
  }

  allToAll(parts: readonly Tensor[], outs: readonly Tensor[]): void {
    const { own } = exchangesOf(this, parts, outs);
    copyMatrix(this.device, own.out, own.part);
  }

  /** A round is this rank's own message. */
  ring(): Ring {
    const finish = () => {};
    const reading = <T>(body: () => T) => body();
    return {
      start: (address) => ({ steps: [{ messages: [{ rank: 0, address }], hold: () => {}, reading }], finish }),
    };
  }

  halo(): HaloExchange {
    return { exchange: () => {} };
  }

  barrier(): void {}

  close(): void {}
}
