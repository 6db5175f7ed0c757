import { deviceDtypes, FP8_KEYS, STATISTICS_PARTS } from "./abi.js";
import type { Device } from "./device.js";
import { quantizeRows } from "./ops.js";
import { matrixShape, partOf, type Tensor, tensor } from "./tensor.js";
import type { RmsNormOptions } from "./wan-ops.js";

// What turns the operands of attention into e4m3 (kernels/include/ditrun.h, "keys and values in e4m3").

/** Keys of a row of transposed e4m3 values, the zeros behind the last included. */
export function paddedKeys(keys: number): number {
  return Math.ceil(keys / FP8_KEYS) * FP8_KEYS;
}

/** e4m3 [rows, columns] with a scale per row and head, as queries and outputs of attention have: rowScale float32 [rows · heads]. */
export function allocateByHead(device: Device, [rows, columns]: readonly [number, number], heads: number): Tensor {
  const byHead = device.allocateMatrix("e4m3", [rows * heads, columns / heads]);
  return { ...byHead, shape: [rows, columns], rowStride: columns };
}

/** q [queries, heads · headDim], contiguous -> e4m3 of the same shape with a scale per query and head. */
export function quantizeQueries(device: Device, q: Tensor, heads: number): Tensor {
  const { rows, columns } = matrixShape(q);
  const out = allocateByHead(device, [rows, columns], heads);
  const byHead = [rows * heads, columns / heads];
  quantizeRows(device, { ...out, shape: byHead, rowStride: columns / heads }, tensor(q.address, q.dtype, byHead));
  return out;
}

/** What makes keys of k [rows, columns]: rmsNorm with this weight and rotary table (see RmsNormOptions), rounded to k's dtype. */
export interface KeyNorm {
  /** float32 [columns] */
  readonly weight: Tensor;
  /** float32 [rows, headDim] */
  readonly rope: Tensor;
  readonly sumSquares?: RmsNormOptions["sumSquares"];
  readonly epsilon: number;
}

/** A KeyNorm with float32 [rows], which kvStatistics writes and quantizeKv reads: 1 / root mean square of each row. */
export type KeysToMake = KeyNorm & { readonly rowFactor: Tensor };

/**
 * statistics float32 [2, columns] = the sum of the keys and the largest |value| of each column of kv [2, rows, columns], whose first part
 * may have to be made into keys.
 */
export function kvStatistics(device: Device, statistics: Tensor, kv: Tensor, keys?: KeysToMake): void {
  const [k, v] = [partOf(kv, 0), partOf(kv, 1)];
  const { rows, columns } = matrixShape(k);
  device.arena.scope(() => {
    const workspace = device.allocate("fp32", [STATISTICS_PARTS, 2, columns]);
    device.launch("elementwise", "kvStatistics", () => [
      {
        statistics: statistics.address,
        workspace: workspace.address,
        k: k.address,
        v: v.address,
        rowFactor: keys?.rowFactor.address ?? 0,
        weight: keys?.weight.address ?? 0,
        rope: keys?.rope.address ?? 0,
        sumSquares: keys?.sumSquares?.sums.address ?? 0,
        ldk: k.rowStride,
        ldv: v.rowStride,
        rows,
        columns,
        fullColumns: keys?.sumSquares?.fullColumns ?? columns,
        headDim: keys?.rope.shape.at(-1) ?? 0,
        dtype: deviceDtypes[kv.dtype],
        epsilon: keys?.epsilon ?? 0,
      },
    ]);
  });
}

/** Where quantizeKv writes to. */
export interface QuantizedKv {
  /** e4m3 [rows, columns] */
  readonly k: Tensor;
  /** e4m3 [columns, paddedKeys(rows)] */
  readonly v: Tensor;
  /** float32 [heads, paddedKeys(rows) / FP8_KEYS] */
  readonly kScale: Tensor;
  /** float32 [columns] */
  readonly vScale: Tensor;
}

/**
 * kv [2, rows, columns] in e4m3: keys less their mean over all totalRows tokens, values transposed.
 * @param statistics float32 [ranks · 2, columns]: each rank's from kvStatistics, in the same order on all, so that all ranks
 * subtract the same mean and share one scale per channel of the values, bit by bit.
 * @param keys as kvStatistics had them.
 */
export function quantizeKv(
  device: Device,
  { k, v, kScale, vScale }: QuantizedKv,
  kv: Tensor,
  options: { statistics: Tensor; totalRows: number; heads: number; keys?: KeysToMake | undefined },
): void {
  const { statistics, totalRows, heads, keys } = options;
  const [ownK, ownV] = [partOf(kv, 0), partOf(kv, 1)];
  const { rows, columns } = matrixShape(ownK);
  device.launch("elementwise", "quantizeKv", () => [
    {
      k: ownK.address,
      v: ownV.address,
      statistics: statistics.address,
      outK: k.address,
      outV: v.address,
      kScale: kScale.address,
      vScale: vScale.address,
      rowFactor: keys?.rowFactor.address ?? 0,
      weight: keys?.weight.address ?? 0,
      rope: keys?.rope.address ?? 0,
      ldk: ownK.rowStride,
      ldv: ownV.rowStride,
      totalRows,
      rows,
      heads,
      headDim: columns / heads,
      statisticsCount: matrixShape(statistics).rows / 2,
      dtype: deviceDtypes[kv.dtype],
      reserved: 0,
    },
  ]);
}
