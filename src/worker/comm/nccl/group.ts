import { sumOf } from "../../ops/peer.js";
import { type Address, SHARE_UNIT } from "../../runtime/abi.js";
import type { Device } from "../../runtime/device.js";
import { dtypeBytes, elements, matrixShape, type Tensor } from "../../runtime/tensor.js";
import type { Store } from "../../store.js";
import type { Group, SumTarget } from "../group.js";
import type { HaloExchange } from "../halo.js";
import type { Ring } from "../ring.js";
import { rangeOf, shares } from "../shares.js";
import { shotsOf } from "../shots.js";
import { ncclAllToAll } from "./all-to-all.js";
import { Communicator } from "./communicator.js";
import { NcclHalo } from "./halo.js";
import { NcclRing } from "./ring.js";

/**
 * A group over NCCL, or TCP between CPUs. It only moves bytes here; sums are added as over peer memory, in one shot (every rank gets every partial)
 * or in two (each rank sums one share, then all get the sums: rounded twice in bf16).
 */
export class NcclGroup implements Group {
  readonly transport = "nccl";
  readonly #barrierWord: Tensor;

  private constructor(private readonly comm: Communicator) {
    this.#barrierWord = comm.device.allocatePersistent("fp32", [1]);
  }

  /** @throws DitrunError from NCCL. */
  static async create(
    name: string,
    device: Device,
    store: Pick<Store, "put" | "get">,
    ranks: readonly number[],
    rank: number,
  ): Promise<NcclGroup> {
    return new NcclGroup(await Communicator.create(name, device, store, ranks, rank));
  }

  get rank(): number {
    return this.comm.rank;
  }

  get size(): number {
    return this.comm.size;
  }

  partial(rows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.comm.device.allocate(dtype, [rows, columns]);
  }

  gatherPart(rowsOfRank: readonly number[], columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.comm.device.allocateMatrix(dtype, [rowsOfRank[this.rank] ?? 0, columns]);
  }

  allReduce(partial: Tensor, target: SumTarget): void {
    const { size, comm } = this;
    const { device } = comm;
    device.arena.scope(() => {
      if (shotsOf(partial, size) === 1) {
        const whole = Array<number>(size).fill(elements(partial.shape));
        sumOf(
          device,
          this.#collect(partial, whole, () => 0),
          partial.dtype,
          target,
        );
        return;
      }
      const counts = shares(elements(partial.shape) / SHARE_UNIT, size).map((units) => units * SHARE_UNIT);
      const summed = device.allocate(partial.dtype, [1, counts[this.rank] ?? 0]);
      const parts = this.#collect(partial, counts, (rank) => rangeOf(counts, rank).start);
      sumOf(device, parts, partial.dtype, { out: summed });
      // What the partial held has been sent: the sums take its place.
      this.#gather(summed, counts, partial);
      sumOf(device, [partial.address], partial.dtype, target);
    });
  }

  reduceScatter(partial: Tensor, rowsOfRank: readonly number[], target: SumTarget): void {
    const { device } = this.comm;
    const { columns } = matrixShape(partial);
    const counts = rowsOfRank.map((rows) => rows * columns);
    device.arena.scope(() => {
      const parts = this.#collect(partial, counts, (rank) => rangeOf(counts, rank).start);
      if ((counts[this.rank] ?? 0) > 0) sumOf(device, parts, partial.dtype, target);
    });
  }

  /**
   * Every rank gets its part of each partial: counts[rank] elements from startOf(rank) on. Sums are made of them here, in rank
   * order and float32: NCCL's own reductions round every addition to the partial's dtype.
   * @returns where the parts lie, in rank order.
   */
  #collect(partial: Tensor, counts: readonly number[], startOf: (rank: number) => number): Address[] {
    const { comm, rank: own } = this;
    const width = dtypeBytes(partial.dtype);
    const addressOf = (rank: number) => partial.address + startOf(rank) * width;
    const bytes = (counts[own] ?? 0) * width;
    const received = comm.others.map((rank) => ({ address: comm.device.allocate("u8", [bytes]).address, bytes, rank }));
    comm.exchange(
      comm.others.map((rank) => ({ address: addressOf(rank), bytes: (counts[rank] ?? 0) * width, rank })),
      received,
    );
    return counts.map((_, rank) => received.find((each) => each.rank === rank)?.address ?? addressOf(own));
  }

  sumInPlace(x: Tensor): void {
    this.comm.allReduce(x);
  }

  allGather(part: Tensor, rowsOfRank: readonly number[], out: Tensor): void {
    if (part.rowScale && out.rowScale) this.allGather(part.rowScale, rowsOfRank, out.rowScale);
    const { columns } = matrixShape(part);
    this.#gather(
      part,
      rowsOfRank.map((rows) => rows * columns),
      out,
    );
  }

  /** out = every rank's part, counts[rank] elements each, one after the other. */
  #gather(part: Tensor, counts: readonly number[], out: Tensor): void {
    const own = counts[this.rank] ?? 0;
    if (counts.every((count) => count === own)) {
      this.comm.allGather(out, part, own);
      return;
    }
    const width = dtypeBytes(part.dtype);
    const receives = counts.map((count, rank) => ({
      address: out.address + rangeOf(counts, rank).start * width,
      bytes: count * width,
      rank,
    }));
    const sends = counts.map((_, rank) => ({ address: part.address, bytes: own * width, rank }));
    this.comm.exchange(sends, receives);
  }

  allToAll(parts: readonly Tensor[], outs: readonly Tensor[]): void {
    ncclAllToAll(this.comm, parts, outs);
  }

  ring(): Ring {
    return new NcclRing(this.comm);
  }

  halo(): HaloExchange {
    return new NcclHalo(this.comm);
  }

  barrier(): void {
    this.comm.allReduce(this.#barrierWord);
  }

  close(): void {
    this.comm.close();
  }
}
