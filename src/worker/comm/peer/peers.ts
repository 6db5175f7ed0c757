import type { Exchange } from "../../../protocol/results.js";
import type { Address } from "../../runtime/abi.js";
import type { Device } from "../../runtime/device.js";
import type { Flag, HeapBlock, PeerHeap } from "./heap.js";

/** The ranks of a group on one host, and where the memory of each lies as this rank maps it. Ranks are the group's; names are its own. */
export class Peers {
  readonly size: number;

  /** @param ranks the world ranks of the group, in group order; `rank` is this one's index among them. */
  constructor(
    readonly name: string,
    readonly device: Device,
    private readonly heap: PeerHeap,
    private readonly ranks: readonly number[],
    readonly rank: number,
  ) {
    this.size = ranks.length;
  }

  /** All ranks in order. */
  get all(): number[] {
    return this.ranks.map((_, rank) => rank);
  }

  /** All ranks but this one, in order. */
  get others(): number[] {
    return this.all.filter((rank) => rank !== this.rank);
  }

  /** What a recording is to know of an exchange of this group. @param to, from ranks of the group. */
  exchange(what: string, to: readonly number[] = [], from: readonly number[] = []): Exchange {
    const world = (ranks: readonly number[]) => ranks.map((rank) => this.#worldRank(rank));
    return { what, group: this.name, ranks: [...this.ranks], to: world(to), from: world(from) };
  }

  /** As PeerHeap has them. */
  block(name: string, bytes: number): HeapBlock {
    return this.heap.block(`${this.name}/${name}`, bytes);
  }
  flag(name: string, credit = false): Flag {
    return this.heap.flag(`${this.name}/${name}`, credit);
  }
  words(name: string, count: number): Flag {
    return this.heap.words(`${this.name}/${name}`, count);
  }

  /** Where a block or a flag lies on a rank of this group; this rank's own by default. 0 while measuring. */
  blockAt(block: HeapBlock, rank = this.rank): Address {
    return this.heap.blockAddress(block, this.#worldRank(rank));
  }
  flagAt(flag: Flag, rank = this.rank): Address {
    return this.heap.flagAddress(flag, this.#worldRank(rank));
  }

  #worldRank(rank: number): number {
    const world = this.ranks[rank];
    if (world === undefined) throw new RangeError(`The ${this.name} group has no rank ${rank}.`);
    return world;
  }
}
