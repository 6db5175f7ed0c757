import { type Address, deviceDtypes } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { matrixShape, type Tensor } from "../runtime/tensor.js";
import type { SumTarget } from "./ops.js";

// Sums and gathers in one launch that every rank of a group makes; ranks meet inside it (kernels/include/ditrun.h).

/** A group's memory as this rank maps it: one block and one run of signals of every rank, in rank order. */
export interface PeerMemory {
  readonly rank: number;
  readonly blocks: readonly Address[];
  readonly signals: readonly Address[];
}

export interface PeerSumOptions {
  /** Elements of each block, and the first one of them that this rank's out is a sum of. */
  readonly total: number;
  readonly first: number;
  /** How many this rank wants: out's, or 0. */
  readonly count: number;
  readonly dtype: Tensor["dtype"];
  readonly shots: 1 | 2;
}

/** out [rows, columns] = base + gate · (Σ blocks[p][first …] + bias), over the ranks p. `memory` is not called while measuring. */
export function peerSum(
  device: Device,
  memory: () => PeerMemory,
  { out, base, bias, gate }: SumTarget,
  options: PeerSumOptions,
): void {
  device.launch("communication", "peerSum", () => {
    const { rank, blocks, signals } = memory();
    return [
      {
        blocks: [...blocks],
        signals: [...signals],
        out: out.address,
        base: base?.address ?? 0,
        bias: bias?.address ?? 0,
        gate: gate?.address ?? 0,
        total: options.total,
        first: options.first,
        count: options.count,
        rank,
        ranks: blocks.length,
        columns: matrixShape(out).columns,
        dtype: deviceDtypes[out.dtype],
        sourceDtype: deviceDtypes[options.dtype],
        biasDtype: deviceDtypes[bias?.dtype ?? out.dtype],
        shots: options.shots,
        reserved: 0,
      },
    ];
  });
}

/** out = the first bytesOfRank[p] bytes of each rank's block, one rank's after the other's. */
export function peerGather(
  device: Device,
  memory: () => PeerMemory,
  out: Tensor,
  bytesOfRank: readonly number[],
): void {
  device.launch("communication", "peerGather", () => {
    const { rank, blocks, signals } = memory();
    return [out.address, [...blocks], [...bytesOfRank], [...signals], rank, blocks.length];
  });
}
