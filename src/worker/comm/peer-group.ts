import { rangeOf } from "../layers/split.js";
import { awaitFlags, type PeerMemory, peerGather, peerSum, writeFlags } from "../ops/peer.js";
import { PEER_BLOCKS } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { dtypeBytes, elements, matrixShape, type Tensor, tensor, tensorBytes } from "../runtime/tensor.js";
import type { Group, SumTarget } from "./group.js";
import type { Flag, PeerHeap } from "./peer-heap.js";
import { shotsOf } from "./shots.js";

/** What a block holds: a summand, or a part of what is gathered, or that part's row scales. */
type Kind = "partial" | "part" | "scale";

/**
 * A group over peer memory: each rank writes into its own block; one launch on every rank then tells the peers so, reads
 * theirs, and ends when all have read, so that the block may be written again.
 */
export class PeerGroup implements Group {
  readonly size: number;
  /** By which the ranks' launches meet. */
  readonly #signals: Flag;

  /** @param ranks the world ranks of the group, in group order; `rank` is this one's index among them. */
  constructor(
    private readonly name: string,
    private readonly device: Device,
    private readonly heap: PeerHeap,
    private readonly ranks: readonly number[],
    readonly rank: number,
  ) {
    this.size = ranks.length;
    this.#signals = heap.words(`${name}/signals`, PEER_BLOCKS * this.size);
  }

  partial(rows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.#claim("partial", rows, rows, columns, dtype);
  }

  gatherPart(rowsOfRank: readonly number[], columns: number, dtype: Tensor["dtype"]): Tensor {
    const rows = rowsOfRank[this.rank] ?? 0;
    const most = Math.max(...rowsOfRank);
    const part = this.#claim("part", rows, most, columns, dtype);
    return dtype === "e4m3" ? { ...part, rowScale: this.#claim("scale", rows, most, 1, "fp32") } : part;
  }

  allReduce(partial: Tensor, target: SumTarget): void {
    const total = elements(partial.shape);
    const shots = shotsOf(partial, this.size);
    this.#sum(partial, target, { first: 0, count: total, shots });
  }

  /** In one shot: each rank needs the sum of its own rows only. */
  reduceScatter(partial: Tensor, rowsOfRank: readonly number[], target: SumTarget): void {
    const { columns } = matrixShape(partial);
    const { start, count } = rangeOf(rowsOfRank, this.rank);
    this.#sum(partial, target, { first: start * columns, count: count * columns, shots: 1 });
  }

  allGather(part: Tensor, rowsOfRank: readonly number[], out: Tensor): void {
    this.#gather("part", part, rowsOfRank, out);
    if (part.rowScale && out.rowScale) this.#gather("scale", part.rowScale, rowsOfRank, out.rowScale);
  }

  barrier(): void {
    // Twice, so that no rank can raise a flag of the next barrier before a slow one has reset it. Ranks may come here at very
    // different times: the device's front end waits, not a kernel.
    for (const phase of ["arrived", "left"]) {
      const flags = this.ranks.map((_, r) => this.heap.flag(`${this.name}/barrier/${phase}/${r}`));
      this.#raise(flags);
      this.#await(flags);
    }
  }

  #gather(kind: Kind, part: Tensor, rowsOfRank: readonly number[], out: Tensor): void {
    this.#mustBeOwn(kind, part);
    const rowBytes = matrixShape(part).columns * dtypeBytes(part.dtype);
    const bytesOfRank = rowsOfRank.map((rows) => rows * rowBytes);
    peerGather(this.device, () => this.#memory(kind), out, bytesOfRank);
  }

  #sum(partial: Tensor, target: SumTarget, range: { first: number; count: number; shots: 1 | 2 }): void {
    this.#mustBeOwn("partial", partial);
    const options = { ...range, total: elements(partial.shape), dtype: partial.dtype };
    peerSum(this.device, () => this.#memory("partial"), target, options);
  }

  /** The tensor in this rank's block. Every launch before has ended on all ranks' behalf, so it is free. */
  #claim(kind: Kind, rows: number, mostRows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
    // Ranks may hold uneven shares; their blocks must still lie at the same offsets.
    const block = this.heap.block(`${this.name}/${kind}`, tensorBytes(dtype, [mostRows, columns]));
    return tensor(this.heap.blockAddress(block, this.worldRank(this.rank)), dtype, [rows, columns]);
  }

  /** Every rank's block of this kind and its signals, as this rank maps them. */
  #memory(kind: Kind): PeerMemory {
    const block = this.heap.block(`${this.name}/${kind}`, 0);
    return {
      rank: this.rank,
      blocks: this.ranks.map((world) => this.heap.blockAddress(block, world)),
      signals: this.ranks.map((world) => this.heap.flagAddress(this.#signals, world)),
    };
  }

  #mustBeOwn(kind: Kind, { address }: Tensor): void {
    if (this.device.measuring || address === this.#memory(kind).blocks[this.rank]) return;
    throw new Error(`The ${this.name} group was given a tensor that is not its own ${kind}.`);
  }

  /** The world rank of a rank of this group. */
  worldRank(rank: number): number {
    const world = this.ranks[rank];
    if (world === undefined) throw new RangeError(`The ${this.name} group has no rank ${rank}.`);
    return world;
  }

  /** Sets, at every peer, the flag that stands for this rank. */
  #raise(flags: readonly Flag[]): void {
    const mine = flags[this.rank];
    if (!mine) return;
    const addresses = this.#peers().map((peer) => this.heap.flagAddress(mine, this.worldRank(peer)));
    writeFlags(this.device, addresses, 1);
  }

  /** Waits for, and resets, this rank's flags that stand for each peer. */
  #await(flags: readonly Flag[]): void {
    const own = this.worldRank(this.rank);
    const addresses = this.#peers()
      .flatMap((peer) => flags[peer] ?? [])
      .map((flag) => this.heap.flagAddress(flag, own));
    awaitFlags(this.device, addresses, { reset: true });
  }

  #peers(): number[] {
    return this.ranks.map((_, r) => r).filter((r) => r !== this.rank);
  }
}
