import type { Context } from "../../comm/context.js";
import type { KeyValues } from "../../ops/attention.js";
import { kvStatistics, paddedKeys, type QuantizedKv, quantizeKv, quantizeQueries } from "../../ops/quantize.js";
import { type Address, FP8_KEYS } from "../../runtime/abi.js";
import { matrixShape, partOf, type Tensor, tensor, tensorBytes } from "../../runtime/tensor.js";
import { gatherRows } from "../split.js";

/** One layer's operands of attention, as the kernel reads them and as a rank's keys and values travel: in one message. */
export interface KeyValuePayload {
  /** This rank's queries [tokens, heads · headDim]. */
  readonly q: Tensor;
  /** This rank's message. */
  readonly address: Address;
  /** e4m3 only, the same on every rank: float32 [heads · headDim]. */
  readonly vScale?: Tensor;
  /** Length of the message of a rank with so many tokens. */
  bytes(tokens: number): number;
  /** What attention reads of such a message. */
  blockOf(address: Address, tokens: number, flag?: Address): KeyValues;
}

/**
 * Queues what makes a payload of q [tokens, columns] and kv [2, tokens, columns], both contiguous; it lives in the arena. Where the
 * payload is e4m3, q may be so already (Attention.queryDtype).
 */
export type MakePayload = (q: Tensor, kv: Tensor, tokensOfRank: readonly number[]) => KeyValuePayload;

/** Keys and values as they are. */
export const asTheyAre: MakePayload = (q, kv) => {
  const { columns } = matrixShape(q);
  return {
    q,
    address: kv.address,
    bytes: (tokens) => tensorBytes(kv.dtype, [2, tokens, columns]),
    blockOf(address, tokens, flag = 0) {
      const block = tensor(address, kv.dtype, [2, tokens, columns]);
      return { k: partOf(block, 0), v: partOf(block, 1), flag };
    },
  };
};

/** Parts of an e4m3 message begin at multiples of this: what the copies into shared memory (TMA) need. */
const PART_BYTES = 16;

/** Where the parts of the e4m3 message of a rank with so many tokens lie, and its length. */
function e4m3Message(address: Address, tokens: number, columns: number, heads: number) {
  const padded = paddedKeys(tokens);
  const valuesAt = Math.ceil((tokens * columns) / PART_BYTES) * PART_BYTES;
  const scalesAt = valuesAt + columns * padded;
  const kScale = tensor(address + scalesAt, "fp32", [heads, padded / FP8_KEYS]);
  return {
    k: tensor(address, "e4m3", [tokens, columns]),
    v: tensor(address + valuesAt, "e4m3", [columns, padded]),
    kScale,
    bytes: scalesAt + tensorBytes(kScale.dtype, kScale.shape),
  };
}

/**
 * Everything in e4m3, about half the bytes of bf16. What a rank's scales depend on crosses the ring's group first, in float32: the
 * mean of all keys, which smooths them (SageAttention, arXiv 2410.02367, section 4.2), and the largest value of each channel. So
 * all blocks are smoothed alike, and their log-sum-exps merge exactly.
 */
export function inE4m3({ device, ring }: Pick<Context, "ring" | "device">, heads: number): MakePayload {
  return (q, kv, tokensOfRank) => {
    const { rows: tokens, columns } = matrixShape(q);
    const message = (address: Address, count: number) => e4m3Message(address, count, columns, heads);
    const bytes = (count: number) => message(0, count).bytes;
    const quantized = q.dtype === "e4m3" ? q : quantizeQueries(device, q, heads);
    const { address } = device.allocate("e4m3", [bytes(tokens)]);
    const vScale = device.allocate("fp32", [columns]);
    device.arena.scope(() => {
      const twoOfRank = Array<number>(ring.size).fill(2);
      const own = ring.gatherPart(twoOfRank, columns, "fp32");
      kvStatistics(device, own, kv);
      const statistics = gatherRows(device, ring, own, twoOfRank); // [ring · 2, columns]
      const totalRows = tokensOfRank.reduce((sum, count) => sum + count, 0);
      const parts: QuantizedKv = { ...message(address, tokens), vScale };
      quantizeKv(device, parts, kv, { statistics, totalRows, heads });
    });
    return {
      q: quantized,
      address,
      vScale,
      bytes,
      blockOf(from, count, flag = 0) {
        const { k, v, kScale } = message(from, count);
        return { k, v, kScale, flag };
      },
    };
  };
}
