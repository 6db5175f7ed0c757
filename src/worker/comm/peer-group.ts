import type { Device } from "../device/device.js";
import { sumOf } from "../device/ops.js";
import { dtypeBytes, matrixShape, type Tensor, tensor, tensorBytes } from "../device/tensor.js";
import { rangeOf } from "../parallel/split.js";
import type { Group, SumTarget } from "./group.js";
import type { Flag, HeapBlock, PeerHeap } from "./peer-heap.js";

/** One of two blocks that take turns, with the flags that guard it. */
interface Slot {
  readonly block: HeapBlock;
  /** ready[r] on this rank: rank r's block holds data. */
  readonly ready: readonly Flag[];
  /** free[r] on this rank: rank r has read what this rank's block held. A credit: 1 at first. */
  readonly free: readonly Flag[];
}

/**
 * A group over peer memory: each rank writes into its own block, raises a flag at every peer, and reads the peers' blocks
 * when their flags are up. Two blocks take turns so that a rank may write the next message while peers read the last one.
 */
export class PeerGroup implements Group {
  readonly size: number;
  readonly #turns = new Map<string, number>();

  /** @param ranks the world ranks of the group, in group order; `rank` is this one's index among them. */
  constructor(
    private readonly name: string,
    private readonly device: Device,
    private readonly heap: PeerHeap,
    private readonly ranks: readonly number[],
    readonly rank: number,
  ) {
    this.size = ranks.length;
  }

  partial(rows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.#claim("partial", rows, rows, columns, dtype);
  }

  gatherPart(rowsOfRank: readonly number[], columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.#claim("part", rowsOfRank[this.rank] ?? 0, Math.max(...rowsOfRank), columns, dtype);
  }

  allReduce(partial: Tensor, target: SumTarget): void {
    const { rows } = matrixShape(partial);
    this.#exchange("partial", partial, (sources) => this.#sum(sources, partial.dtype, 0, rows, target));
  }

  reduceScatter(partial: Tensor, rowsOfRank: readonly number[], target: SumTarget): void {
    const { start, count } = rangeOf(rowsOfRank, this.rank);
    this.#exchange("partial", partial, (sources) => this.#sum(sources, partial.dtype, start, count, target));
  }

  allGather(part: Tensor, rowsOfRank: readonly number[], out: Tensor): void {
    const { columns } = matrixShape(part);
    const rowBytes = columns * dtypeBytes(part.dtype);
    this.#exchange("part", part, (sources) => {
      sources.forEach((source, rank) => {
        const { start, count } = rangeOf(rowsOfRank, rank);
        const destination = out.address + start * rowBytes;
        if (count > 0) this.device.launch("communication", "copy", () => [destination, source, count * rowBytes]);
      });
    });
  }

  barrier(): void {
    // Twice, so that no rank can raise a flag of the next barrier before a slow one has reset it.
    for (const phase of ["arrived", "left"]) {
      const flags = this.ranks.map((_, r) => this.heap.flag(`${this.name}/barrier/${phase}/${r}`));
      this.#raise(flags);
      this.#await(flags);
    }
  }

  /** The sum of `rows` rows from row `start` of each source, into a target of just those rows. */
  #sum(sources: readonly number[], dtype: Tensor["dtype"], start: number, rows: number, target: SumTarget): void {
    if (rows === 0) return;
    const offset = start * matrixShape(target.out).columns * dtypeBytes(dtype);
    const slices = sources.map((source) => source + offset);
    sumOf(this.device, slices, dtype, target);
  }

  /** The tensor in this rank's block of the current turn, once every peer has read what it held before. */
  #claim(kind: string, rows: number, mostRows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
    // Ranks may hold uneven shares; their blocks must still lie at the same offsets.
    const slot = this.#slot(kind, tensorBytes(dtype, [mostRows, columns]));
    this.#await(slot.free);
    return tensor(this.heap.blockAddress(slot.block, this.worldRank(this.rank)), dtype, [rows, columns]);
  }

  /** Tells the peers that this rank's block is full, waits for theirs, reads, and gives the blocks back. */
  #exchange(kind: string, mine: Tensor, read: (sources: readonly number[]) => void): void {
    const slot = this.#slot(kind, 0);
    if (!this.device.measuring && mine.address !== this.heap.blockAddress(slot.block, this.worldRank(this.rank))) {
      throw new Error(`The ${this.name} group was given a tensor that is not its own ${kind}.`);
    }
    this.#raise(slot.ready);
    this.#await(slot.ready);
    read(this.ranks.map((world) => this.heap.blockAddress(slot.block, world)));
    this.#raise(slot.free);
    this.#turns.set(kind, (this.#turns.get(kind) ?? 0) + 1);
  }

  /** The slot whose turn it is. Both are reserved at once: a forward may use a kind an odd number of times. */
  #slot(kind: string, bytes: number): Slot {
    const slotOf = (turn: number): Slot => {
      const name = `${this.name}/${kind}/${turn}`;
      return {
        block: this.heap.block(name, bytes),
        ready: this.ranks.map((_, r) => this.heap.flag(`${name}/ready/${r}`)),
        free: this.ranks.map((_, r) => this.heap.flag(`${name}/free/${r}`, true)),
      };
    };
    const slots = [slotOf(0), slotOf(1)] as const;
    return slots[(this.#turns.get(kind) ?? 0) % 2 === 0 ? 0 : 1];
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
    if (!mine || this.size === 1) return;
    const addresses = this.#peers().map((peer) => this.heap.flagAddress(mine, this.worldRank(peer)));
    this.device.launch("communication", "flagsWrite", () => [addresses, addresses.length, 1]);
  }

  /** Waits for, and resets, this rank's flags that stand for each peer. */
  #await(flags: readonly Flag[]): void {
    if (this.size === 1) return;
    const own = this.worldRank(this.rank);
    const addresses = this.#peers()
      .flatMap((peer) => flags[peer] ?? [])
      .map((flag) => this.heap.flagAddress(flag, own));
    this.device.launch("communication", "flagsWait", () => [addresses, addresses.length, 1]);
  }

  #peers(): number[] {
    return this.ranks.map((_, r) => r).filter((r) => r !== this.rank);
  }
}
