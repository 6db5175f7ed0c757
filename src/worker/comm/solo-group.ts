import { copy } from "../ops/copy.js";
import { sumOf } from "../ops/peer.js";
import type { Device } from "../runtime/device.js";
import { type Tensor, tensorBytes } from "../runtime/tensor.js";
import type { Group, SumTarget } from "./group.js";

/** The group of one rank: nothing travels. */
export class SoloGroup implements Group {
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

  barrier(): void {}
}
