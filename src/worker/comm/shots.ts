import { SHARE_UNIT } from "../runtime/abi.js";
import { dtypeBytes, matrixShape, type Tensor } from "../runtime/tensor.js";

/**
 * What the second shot costs, in bytes that a rank could have read from its peers meanwhile: one more meeting of all ranks and a
 * second start of the reading, 3 µs (bench/NOTES.md) at 324 GB/s.
 */
const SECOND_SHOT_BYTES = 2 ** 20;

/**
 * Whether a sum of a partial [rows, columns] over so many ranks takes one shot or two (kernels/include/ditrun.h). In one shot
 * each rank reads (ranks - 1) times its bytes from peers, in two 2 (ranks - 1) / ranks times: with 2 ranks the same, so there
 * one shot; with more, two shots where they save more reading than they cost: from 683 KiB with 4 ranks, 195 KiB with 8.
 * Depends on nothing that differs between ranks.
 */
export function shotsOf(partial: Tensor, ranks: number): 1 | 2 {
  const { rows, columns } = matrixShape(partial);
  const saved = (ranks - 1) * (1 - 2 / ranks) * rows * columns * dtypeBytes(partial.dtype);
  return saved > SECOND_SHOT_BYTES && columns % SHARE_UNIT === 0 ? 2 : 1;
}
