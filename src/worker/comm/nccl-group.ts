import { rangeOf, shares } from "../layers/split.js";
import {
  checkNccl,
  joinNccl,
  leaveNccl,
  type Message,
  ncclAllGather,
  ncclAllReduce,
  ncclExchange,
  ncclUniqueId,
} from "../ops/nccl.js";
import { sumOf } from "../ops/peer.js";
import { type Address, type Handle, SHARE_UNIT } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { dtypeBytes, elements, matrixShape, type Tensor } from "../runtime/tensor.js";
import type { Store } from "../store.js";
import type { Group, SumTarget } from "./group.js";
import { shotsOf } from "./shots.js";

const CHECK_EVERY_MS = 1000;

/**
 * A group over NCCL: any hosts, one GPU per rank. NCCL only moves bytes here; sums are added as over peer memory, in one shot
 * (every rank gets every partial) or in two (each rank sums one share, then all get the sums: rounded twice in bf16).
 */
export class NcclGroup implements Group {
  readonly size: number;
  readonly #check: NodeJS.Timeout;
  readonly #barrierWord: Tensor;

  private constructor(
    private readonly device: Device,
    private readonly comm: Handle,
    readonly rank: number,
    ranks: readonly number[],
  ) {
    this.size = ranks.length;
    this.#barrierWord = device.allocatePersistent("fp32", [1]);
    // What NCCL meets in the background (a peer or a link that is gone) would leave the stream waiting for ever. Thrown here,
    // it ends the worker as any uncaught failure does.
    this.#check = setInterval(() => checkNccl(device, comm), CHECK_EVERY_MS).unref();
  }

  /** The group's first rank makes the NCCL unique ID; it travels through the store. @throws DitrunError from NCCL. */
  static async create(
    name: string,
    device: Device,
    store: Pick<Store, "put" | "get">,
    ranks: readonly number[],
    rank: number,
  ) {
    const key = `nccl/${name}/${ranks.join(",")}`;
    if (rank === 0) {
      await store.put(key, ncclUniqueId(device));
    }
    const id = await store.get(key);
    return new NcclGroup(device, await joinNccl(device, id, rank, ranks.length), rank, ranks);
  }

  partial(rows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.device.allocate(dtype, [rows, columns]);
  }

  gatherPart(rowsOfRank: readonly number[], columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.device.allocateMatrix(dtype, [rowsOfRank[this.rank] ?? 0, columns]);
  }

  allReduce(partial: Tensor, target: SumTarget): void {
    const { device, size } = this;
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
    const { columns } = matrixShape(partial);
    const counts = rowsOfRank.map((rows) => rows * columns);
    this.device.arena.scope(() => {
      const parts = this.#collect(partial, counts, (rank) => rangeOf(counts, rank).start);
      if ((counts[this.rank] ?? 0) > 0) sumOf(this.device, parts, partial.dtype, target);
    });
  }

  /**
   * Every rank gets its part of each partial: counts[rank] elements from startOf(rank) on. Sums are made of them here, in rank
   * order and float32: NCCL's own reductions round every addition to the partial's dtype.
   * @returns where the parts lie, in rank order.
   */
  #collect(partial: Tensor, counts: readonly number[], startOf: (rank: number) => number): Address[] {
    const width = dtypeBytes(partial.dtype);
    const addressOf = (rank: number) => partial.address + startOf(rank) * width;
    const others = counts.flatMap((_, rank) => (rank === this.rank ? [] : [rank]));
    const bytes = (counts[this.rank] ?? 0) * width;
    const received = others.map((rank) => ({ address: this.device.allocate("u8", [bytes]).address, bytes, rank }));
    this.exchange(
      others.map((rank) => ({ address: addressOf(rank), bytes: (counts[rank] ?? 0) * width, rank })),
      received,
    );
    return counts.map((_, rank) => received.find((each) => each.rank === rank)?.address ?? addressOf(this.rank));
  }

  /** NCCL's own all-reduce: x becomes the sum of every rank's x, each addition rounded to x's dtype. What others' sums are compared with. */
  sumInPlace(x: Tensor): void {
    ncclAllReduce(this.device, this.comm, x);
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
    const width = dtypeBytes(part.dtype);
    if (counts.every((count) => count === own)) {
      ncclAllGather(this.device, this.comm, out, part, { count: own, ranks: this.size });
      return;
    }
    const receives = counts.map((count, rank) => ({
      address: out.address + rangeOf(counts, rank).start * width,
      bytes: count * width,
      rank,
    }));
    const sends = counts.map((_, rank) => ({ address: part.address, bytes: own * width, rank }));
    this.exchange(sends, receives);
  }

  /** All messages at once, on the compute stream or the copy stream. */
  exchange(sends: readonly Message[], receives: readonly Message[], stream: "compute" | "copy" = "compute"): void {
    ncclExchange(this.device, this.comm, { sends, receives, stream });
  }

  barrier(): void {
    ncclAllReduce(this.device, this.comm, this.#barrierWord);
  }

  close(): void {
    clearInterval(this.#check);
    leaveNccl(this.device, this.comm);
  }
}
