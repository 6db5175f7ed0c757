import { NcclGroup } from "../comm/nccl-group.js";
import { PeerGroup } from "../comm/peer-group.js";
import type { Context } from "../context.js";
import { type Address, attentionKernels } from "../device/abi.js";
import { attention, type KeyValues } from "../device/ops.js";
import { matrixShape, partOf, type Tensor, tensor, tensorBytes } from "../device/tensor.js";

/**
 * Attention of this rank's queries to the keys and values of every cp rank.
 * q and the result [tokens, heads · headDim]; kv [2, tokens, heads · headDim], contiguous; tokensOfRank the tokens of each cp rank.
 */
export interface RingAttention {
  attend(q: Tensor, kv: Tensor, tokensOfRank: readonly number[]): Tensor;
  /** After a synchronize: milliseconds that attention waited for the block of each ring step, summed over layers; then zero again. */
  takeWaits(): Promise<number[]>;
}

/** The ring for the context's cp group and transport; at degree 1 it is plain attention. */
export function makeRingAttention(context: Context, heads: number): RingAttention {
  const { cp } = context;
  if (cp instanceof PeerGroup) return new PeerRing(context, cp, heads);
  if (cp instanceof NcclGroup) return new NcclRing(context, cp, heads);
  return new PlainAttention(context, heads);
}

const kernelOf = (context: Context): number => attentionKernels[context.plan.attention.kernel];

/** Keys and values of one [2, tokens, width] buffer. */
function blockOf(kv: Tensor, flag: Address = 0): KeyValues {
  return { k: partOf(kv, 0), v: partOf(kv, 1), flag };
}

class PlainAttention implements RingAttention {
  constructor(
    private readonly context: Context,
    private readonly heads: number,
  ) {}

  attend(q: Tensor, kv: Tensor): Tensor {
    const { device } = this.context;
    const o = device.allocate(q.dtype, q.shape);
    attention(device, o, q, [blockOf(kv)], { heads: this.heads, kernel: kernelOf(this.context) });
    return o;
  }

  async takeWaits(): Promise<number[]> {
    return [];
  }
}

/**
 * Over peer memory, with copy engines only: every rank pushes its keys and values straight to each peer, to the next rank
 * first, so that at step s each rank receives from the one s before it and no link carries two blocks at once. One attention
 * launch walks over the blocks in that order, waiting on a flag for each: one softmax state, no merge (ring order of
 * arXiv 2310.01889; direct sends need no forwarding, since every pair of GPUs of a host is linked).
 * Buffers of even and odd layers take turns, so a peer may still read layer l while layer l + 1 arrives.
 */
class PeerRing implements RingAttention {
  #layer = 0;
  #waits: Tensor | undefined;

  constructor(
    private readonly context: Context,
    private readonly cp: PeerGroup,
    private readonly heads: number,
  ) {}

  attend(q: Tensor, kv: Tensor, tokensOfRank: readonly number[]): Tensor {
    const { device, heap } = this.context;
    const { rank, size } = this.cp;
    const columns = matrixShape(q).columns;
    const slotBytes = tensorBytes(kv.dtype, [2, Math.max(...tokensOfRank), columns]);
    const buffers = [this.#buffers(0, slotBytes), this.#buffers(1, slotBytes)] as const;
    const { slots, full, free } = buffers[this.#layer++ % 2 === 0 ? 0 : 1];
    const world = (r: number) => this.cp.worldRank(r);
    const at = <T>(list: readonly T[], r: number): T => {
      const item = list[r];
      if (item === undefined) throw new RangeError(`The ring has no rank ${r}.`);
      return item;
    };
    const here = world(rank);

    device.waitFor("copy", device.mark("compute"));
    const kvBytes = tensorBytes(kv.dtype, kv.shape);
    for (let step = 1; step < size; step++) {
      const to = (rank + step) % size;
      const credit = heap.flagAddress(at(free, to), here);
      const destination = heap.blockAddress(at(slots, rank), world(to));
      const arrived = heap.flagAddress(at(full, rank), world(to));
      device.launch("communication", "flagsWait", () => [[credit], 1, 1], "copy");
      device.launch("communication", "copy", () => [destination, kv.address, kvBytes], "copy");
      device.launch("communication", "flagsWrite", () => [[arrived], 1, 1], "copy");
    }
    const sent = device.mark("copy");

    const sources = Array.from({ length: size - 1 }, (_, i) => (rank - i - 1 + size) % size);
    const blocks = sources.map((r) => {
      const slot = tensor(heap.blockAddress(at(slots, r), here), kv.dtype, [2, at(tokensOfRank, r), columns]);
      return blockOf(slot, heap.flagAddress(at(full, r), here));
    });
    if (!this.#waits) {
      this.#waits = device.allocatePersistent("i32", [size, 2]);
      device.kernels.call("fillZero", this.#waits.address, size * 8, device.streams.compute);
    }
    const o = device.allocate(q.dtype, q.shape);
    attention(device, o, q, [blockOf(kv), ...blocks], {
      heads: this.heads,
      kernel: kernelOf(this.context),
      waitNanoseconds: this.#waits.address,
    });

    const reset = sources.map((r) => heap.flagAddress(at(full, r), here));
    device.launch("communication", "flagsWrite", () => [reset, reset.length, 0]);
    const credits = sources.map((r) => heap.flagAddress(at(free, rank), world(r)));
    device.launch("communication", "flagsWrite", () => [credits, credits.length, 1]);
    // kv lies in the arena: nothing may overwrite it before it has been sent.
    device.waitFor("compute", sent);
    return o;
  }

  /** What even (0) or odd (1) layers receive into: a slot for each rank's block, and the flags that guard it. */
  #buffers(turn: 0 | 1, slotBytes: number) {
    const { heap } = this.context;
    const ranks = Array.from({ length: this.cp.size }, (_, r) => r);
    return {
      slots: ranks.map((r) => heap.block(`ring/${turn}/${r}`, slotBytes)),
      /** full[r] here: rank r's block has arrived. */
      full: ranks.map((r) => heap.flag(`ring/${turn}/full/${r}`)),
      /** free[r] here: rank r has read what this rank sent it (a credit). */
      free: ranks.map((r) => heap.flag(`ring/${turn}/free/${r}`, true)),
    };
  }

  async takeWaits(): Promise<number[]> {
    if (!this.#waits) return [];
    const { device } = this.context;
    const words = await device.download(this.#waits);
    device.kernels.call("fillZero", this.#waits.address, words.byteLength, device.streams.compute);
    return [...new BigUint64Array(words.buffer)].map((nanoseconds) => Number(nanoseconds) / 1e6);
  }
}

/**
 * Over NCCL: at each step a rank passes the block it holds to the next rank and receives one from the rank before, while it
 * attends to the block of the step before; partial results merge by log-sum-exp in float32 in the attention kernel's epilogue.
 */
class NcclRing implements RingAttention {
  constructor(
    private readonly context: Context,
    private readonly cp: NcclGroup,
    private readonly heads: number,
  ) {}

  attend(q: Tensor, kv: Tensor, tokensOfRank: readonly number[]): Tensor {
    const { device } = this.context;
    const { rank, size } = this.cp;
    const { rows, columns } = matrixShape(q);
    const o = device.allocate(q.dtype, q.shape);
    device.arena.scope(() => {
      const partial = { o: device.allocate("fp32", q.shape), lse: device.allocate("fp32", [this.heads, rows]) };
      const held: Tensor[] = [kv];
      const arrivals: number[] = [];
      device.waitFor("copy", device.mark("compute"));
      for (let step = 1; step < size; step++) {
        const tokens = tokensOfRank[(rank - step + size) % size] ?? 0;
        const block = device.allocate(kv.dtype, [2, tokens, columns]);
        const previous = held.at(-1) ?? kv;
        const message = (x: Tensor, to: number) => ({
          address: x.address,
          bytes: tensorBytes(x.dtype, x.shape),
          rank: to,
        });
        this.cp.exchange([message(previous, (rank + 1) % size)], [message(block, (rank - 1 + size) % size)], "copy");
        arrivals.push(device.mark("copy"));
        held.push(block);
      }
      held.forEach((block, step) => {
        const arrival = arrivals[step - 1];
        if (arrival !== undefined) device.waitFor("compute", arrival);
        const last = step === size - 1;
        attention(device, last ? o : partial.o, q, [blockOf(block)], {
          heads: this.heads,
          kernel: kernelOf(this.context),
          lse: last ? undefined : partial.lse,
          previous: step > 0 ? partial : undefined,
        });
      });
    });
    return o;
  }

  async takeWaits(): Promise<number[]> {
    return [];
  }
}
