import { type Address, ATTENTION_WORKSPACE, deviceDtypes, type KvBlock } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { addressOf, dtypeBytes, matrixShape, type Tensor } from "../runtime/tensor.js";
import { passOverRows } from "../runtime/work.js";

// Attention, whole or over the blocks of a ring, and the softmax of scores that lie in memory.

/**
 * One run of keys and values [length, heads · headDim], read once the flag (an address, or 0) is 1. In e4m3 as quantizeKv
 * writes them: v [heads · headDim, padded length].
 */
export interface KeyValues {
  readonly k: Tensor;
  readonly v: Tensor;
  readonly flag: Address;
  /** e4m3 only: float32 [heads, padded length / FP8_KEYS]. */
  readonly kScale?: Tensor | undefined;
}

export interface AttentionOptions {
  readonly heads: number;
  readonly kernel: number;
  /** float32 [heads, queries], or absent. */
  readonly lse?: Tensor | undefined;
  /** A partial result to merge with: float32 [queries, heads · headDim] and [heads, queries]. */
  readonly previous?: { readonly o: Tensor; readonly lse: Tensor } | undefined;
  /** 1/√headDim unless given. */
  readonly scale?: number;
  /** float32 [heads, queries + keys - 1], added to the scores (T5). */
  readonly relativeBias?: Tensor | undefined;
  /** uint64 per block: nanoseconds spent waiting for its flag; address or 0. */
  readonly waitNanoseconds?: Address;
  /** e4m3 only: float32 [heads, headDim]. */
  readonly vScale?: Tensor | undefined;
}

/** o = softmax(q kᵀ / √headDim) v over all blocks in order; q and o [queries, heads · headDim]. In e4m3 they have a scale per head: rowScale [queries, heads]. */
export function attention(
  device: Device,
  o: Tensor,
  q: Tensor,
  blocks: readonly KeyValues[],
  options: AttentionOptions,
) {
  const { rows: queries, columns } = matrixShape(q);
  const headDim = columns / options.heads;
  const kvBlocks = (): KvBlock[] =>
    blocks.map(({ k, v, flag, kScale }) => ({
      k: k.address,
      v: v.address,
      flag,
      kStride: k.rowStride,
      vStride: v.rowStride,
      kScale: addressOf(kScale),
      length: matrixShape(k).rows,
      reserved: 0,
    }));
  // Only e4m3 kernels share out keys, and only where they are in one block.
  const workspaceBytes = q.dtype === "e4m3" && blocks.length === 1 ? ATTENTION_WORKSPACE : 0;
  const work = () => {
    const keys = blocks.reduce((sum, { k }) => sum + matrixShape(k).rows, 0);
    return {
      flops: 4 * queries * keys * columns,
      bytes: columns * (queries * (dtypeBytes(q.dtype) + dtypeBytes(o.dtype)) + 2 * keys * dtypeBytes(q.dtype)),
      dtype: q.dtype,
      shape: `${options.heads}×${queries}×${keys}×${headDim} ${q.dtype}`,
      ...(options.waitNanoseconds ? { waits: true } : {}),
    };
  };
  device.arena.scope(() => {
    const workspace = workspaceBytes > 0 ? device.allocate("u8", [workspaceBytes]).address : 0;
    device.launch("attention", {
      phase: "attention",
      work,
      args: () => [
        {
          q: q.address,
          o: o.address,
          lse: addressOf(options.lse),
          previousO: addressOf(options.previous?.o),
          previousLse: addressOf(options.previous?.lse),
          blocks: kvBlocks(),
          relativeBias: addressOf(options.relativeBias),
          qScale: addressOf(q.rowScale),
          vScale: addressOf(options.vScale),
          waitNanoseconds: options.waitNanoseconds ?? 0,
          oScale: addressOf(o.rowScale),
          workspace,
          qStride: q.rowStride,
          oStride: o.rowStride,
          workspaceBytes,
          queries,
          heads: options.heads,
          headDim,
          blockCount: blocks.length,
          dtype: deviceDtypes[q.dtype],
          oDtype: deviceDtypes[o.dtype],
          kernel: options.kernel,
          scale: options.scale ?? headDim ** -0.5,
        },
      ],
    });
  });
}

/** out = softmax(scale · row) of each row of x [rows, columns]; out may be x. */
export function softmaxRows(device: Device, out: Tensor, x: Tensor, scale: number): void {
  const { rows, columns } = matrixShape(x);
  device.launch("softmaxRows", {
    phase: "attention",
    work: () => passOverRows(x, out),
    args: () => [out.address, deviceDtypes[out.dtype], x.address, deviceDtypes[x.dtype], rows, columns, scale],
  });
}
