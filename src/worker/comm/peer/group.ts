import { type PeerMemory, peerGather, peerSum, waitFlags, writeFlags } from "../../ops/peer.js";
import { PEER_BLOCKS } from "../../runtime/abi.js";
import { dtypeBytes, elements, matrixShape, type Tensor, tensor, tensorBytes } from "../../runtime/tensor.js";
import type { Group, SumTarget } from "../group.js";
import type { HaloExchange } from "../halo.js";
import type { Ring } from "../ring.js";
import { rangeOf } from "../shares.js";
import { shotsOf } from "../shots.js";
import { PeerAllToAll } from "./all-to-all.js";
import { PeerHalo } from "./halo.js";
import type { Flag } from "./heap.js";
import type { Peers } from "./peers.js";
import { PeerRing } from "./ring.js";

/** What a block holds: a summand, or a part of what is gathered, or that part's row scales. */
type Kind = "partial" | "part" | "scale";

/**
 * A group over peer memory. For sums and gathers each rank writes into its own block; one launch on every rank then tells the peers
 * so, reads theirs, and ends when all have read, so that the block may be written again.
 */
export class PeerGroup implements Group {
  readonly transport = "peer";
  /** By which the ranks' launches meet. */
  readonly #signals: Flag;
  #allToAll: PeerAllToAll | undefined;

  constructor(private readonly peers: Peers) {
    this.#signals = peers.words("signals", PEER_BLOCKS * peers.size);
  }

  get rank(): number {
    return this.peers.rank;
  }

  get size(): number {
    return this.peers.size;
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

  allToAll(parts: readonly Tensor[], outs: readonly Tensor[]): void {
    this.#allToAll ??= new PeerAllToAll(this.peers);
    this.#allToAll.exchange(parts, outs);
  }

  ring(): Ring {
    return new PeerRing(this.peers);
  }

  halo(): HaloExchange {
    return new PeerHalo(this.peers);
  }

  barrier(): void {
    const { peers } = this;
    peers.device.exchanging(
      () => peers.exchange("barrier"),
      () => this.#meet(),
    );
  }

  #meet(): void {
    const { peers } = this;
    // Twice, so that no rank can raise a flag of the next barrier before a slow one has reset it. Ranks may come here at very
    // different times: the device's front end waits, not a kernel.
    for (const phase of ["arrived", "left"]) {
      const flags = peers.all.map((rank) => ({ rank, flag: peers.flag(`barrier/${phase}/${rank}`) }));
      const mine = flags.filter(({ rank }) => rank === peers.rank);
      const theirs = flags.filter(({ rank }) => rank !== peers.rank);
      writeFlags(
        peers.device,
        mine.flatMap(({ flag }) => peers.others.map((peer) => peers.flagAt(flag, peer))),
        1,
      );
      waitFlags(
        peers.device,
        theirs.map(({ flag }) => peers.flagAt(flag)),
        { reset: true },
      );
    }
  }

  /** The heap is the context's. */
  close(): void {}

  #gather(kind: Kind, part: Tensor, rowsOfRank: readonly number[], out: Tensor): void {
    this.#mustBeOwn(kind, part);
    const rowBytes = matrixShape(part).columns * dtypeBytes(part.dtype);
    const bytesOfRank = rowsOfRank.map((rows) => rows * rowBytes);
    const { device } = this.peers;
    device.exchanging(
      () => this.peers.exchange("gather"),
      () => peerGather(device, () => this.#memory(kind), out, bytesOfRank),
    );
  }

  #sum(partial: Tensor, target: SumTarget, range: { first: number; count: number; shots: 1 | 2 }): void {
    this.#mustBeOwn("partial", partial);
    const options = { ...range, total: elements(partial.shape), dtype: partial.dtype };
    const { device } = this.peers;
    device.exchanging(
      () => this.peers.exchange(range.count === options.total ? "all-reduce" : "reduce-scatter"),
      () => peerSum(device, () => this.#memory("partial"), target, options),
    );
  }

  /** The tensor in this rank's block. Every launch before has ended on all ranks' behalf, so it is free. */
  #claim(kind: Kind, rows: number, mostRows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
    // Ranks may hold uneven shares; their blocks must still lie at the same offsets.
    const block = this.peers.block(kind, tensorBytes(dtype, [mostRows, columns]));
    return tensor(this.peers.blockAt(block), dtype, [rows, columns]);
  }

  /** Every rank's block of this kind and its signals, as this rank maps them. */
  #memory(kind: Kind): PeerMemory {
    const { peers } = this;
    const block = peers.block(kind, 0);
    return {
      rank: this.rank,
      blocks: peers.all.map((rank) => peers.blockAt(block, rank)),
      signals: peers.all.map((rank) => peers.flagAt(this.#signals, rank)),
    };
  }

  #mustBeOwn(kind: Kind, { address }: Tensor): void {
    if (this.peers.device.measuring || address === this.#memory(kind).blocks[this.rank]) return;
    throw new Error(`The ${this.peers.name} group was given a tensor that is not its own ${kind}.`);
  }
}
