import { deviceDtypes, FP8_KEYS, STATISTICS_PARTS } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { addressOf, matrixShape, partOf, type Tensor, tensor } from "../runtime/tensor.js";
import { passOverRows } from "../runtime/work.js";

// What turns matrices and the operands of attention into e4m3 (kernels/include/ditrun.h, "keys and values in e4m3").

/** Per-row e4m3: out = x / scale, out's row scale = amax / 448. */
export function quantizeRows(device: Device, out: Tensor, x: Tensor): void {
  const { rows, columns } = matrixShape(x);
  device.launch("quantizeRows", {
    phase: "elementwise",
    work: () => passOverRows(x, out),
    args: () => [out.address, addressOf(out.rowScale), x.address, x.rowStride, rows, columns, deviceDtypes[x.dtype]],
  });
}

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

/** statistics float32 [2, columns] = the sum of the keys and the largest |value| of each column of kv [2, rows, columns]. */
export function kvStatistics(device: Device, statistics: Tensor, kv: Tensor): void {
  const [k, v] = [partOf(kv, 0), partOf(kv, 1)];
  const { rows, columns } = matrixShape(k);
  device.arena.scope(() => {
    const workspace = device.allocate("fp32", [STATISTICS_PARTS, 2, columns]);
    device.launch("kvStatistics", {
      phase: "elementwise",
      work: () => passOverRows(k, v),
      args: () => [
        statistics.address,
        workspace.address,
        k.address,
        k.rowStride,
        v.address,
        v.rowStride,
        rows,
        columns,
        deviceDtypes[kv.dtype],
      ],
    });
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
 */
export function quantizeKv(
  device: Device,
  { k, v, kScale, vScale }: QuantizedKv,
  kv: Tensor,
  { statistics, totalRows, heads }: { statistics: Tensor; totalRows: number; heads: number },
): void {
  const [ownK, ownV] = [partOf(kv, 0), partOf(kv, 1)];
  const { rows, columns } = matrixShape(ownK);
  device.launch("quantizeKv", {
    phase: "elementwise",
    work: () => passOverRows(ownK, ownV, k, v),
    args: () => [
      {
        k: ownK.address,
        v: ownV.address,
        statistics: statistics.address,
        outK: k.address,
        outV: v.address,
        kScale: kScale.address,
        vScale: vScale.address,
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
    ],
  });
}
