import { deviceDtypes, type Handle } from "../device/abi.js";
import type { Device } from "../device/device.js";
import { sumOf } from "../device/ops.js";
import { dtypeBytes, elements, matrixShape, type Tensor } from "../device/tensor.js";
import { rangeOf } from "../parallel/split.js";
import type { Store } from "../store.js";
import type { Group, SumTarget } from "./group.js";

const NCCL_ID_BYTES = 128;
const CHECK_EVERY_MS = 1000;

/** One message of an exchange between two ranks of a group. */
export interface Message {
  readonly address: number;
  readonly bytes: number;
  /** Group rank of the other side. */
  readonly rank: number;
}

/** A group over NCCL: any hosts, one GPU per rank. */
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
    this.#check = setInterval(() => device.kernels.call("ncclCheck", comm), CHECK_EVERY_MS).unref();
  }

  /** The group's first rank makes the NCCL unique ID; it travels through the store. @throws DitrunError from NCCL. */
  static async create(name: string, device: Device, store: Store, ranks: readonly number[], rank: number) {
    const key = `nccl/${name}/${ranks.join(",")}`;
    if (rank === 0) {
      const id = new Uint8Array(NCCL_ID_BYTES);
      device.kernels.call("ncclUniqueId", id);
      await store.put(key, id);
    }
    const id = await store.get(key);
    return new NcclGroup(device, await device.kernels.createBlocking("ncclInit", id, rank, ranks.length), rank, ranks);
  }

  partial(rows: number, columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.device.allocate(dtype, [rows, columns]);
  }

  gatherPart(rowsOfRank: readonly number[], columns: number, dtype: Tensor["dtype"]): Tensor {
    return this.device.allocateMatrix(dtype, [rowsOfRank[this.rank] ?? 0, columns]);
  }

  allReduce(partial: Tensor, target: SumTarget): void {
    this.sumInPlace(partial);
    sumOf(this.device, [partial.address], partial.dtype, target);
  }

  /** x becomes the sum of every rank's x, in its own dtype. */
  sumInPlace(x: Tensor): void {
    this.device.launch("communication", "ncclAllReduce", () => [
      this.comm,
      x.address,
      x.address,
      elements(x.shape),
      deviceDtypes[x.dtype],
    ]);
  }

  reduceScatter(partial: Tensor, rowsOfRank: readonly number[], target: SumTarget): void {
    const { columns } = matrixShape(partial);
    const rowBytes = columns * dtypeBytes(partial.dtype);
    const own = rowsOfRank[this.rank] ?? 0;
    const startOf = (rank: number) => rangeOf(rowsOfRank, rank).start;
    if (rowsOfRank.every((rows) => rows === own)) {
      // NCCL writes rank r's sum over the r-th part of its own input.
      const out = partial.address + startOf(this.rank) * rowBytes;
      this.device.launch("communication", "ncclReduceScatter", () => [
        this.comm,
        out,
        partial.address,
        own * columns,
        deviceDtypes[partial.dtype],
      ]);
      sumOf(this.device, [out], partial.dtype, target);
      return;
    }
    // Uneven shares: every rank sends each other rank its rows, and sums what it got in rank order.
    const others = rowsOfRank.flatMap((_, rank) => (rank === this.rank ? [] : [rank]));
    const received = this.device.allocate(partial.dtype, [others.length * own, columns]).address;
    this.exchange(
      others.map((rank) => ({
        address: partial.address + startOf(rank) * rowBytes,
        bytes: (rowsOfRank[rank] ?? 0) * rowBytes,
        rank,
      })),
      others.map((rank, index) => ({ address: received + index * own * rowBytes, bytes: own * rowBytes, rank })),
    );
    const sources = rowsOfRank.map((_, rank) =>
      rank === this.rank
        ? partial.address + startOf(rank) * rowBytes
        : received + others.indexOf(rank) * own * rowBytes,
    );
    sumOf(this.device, sources, partial.dtype, target);
  }

  allGather(part: Tensor, rowsOfRank: readonly number[], out: Tensor): void {
    if (part.rowScale && out.rowScale) this.allGather(part.rowScale, rowsOfRank, out.rowScale);
    const { columns } = matrixShape(part);
    const rowBytes = columns * dtypeBytes(part.dtype);
    const own = rowsOfRank[this.rank] ?? 0;
    if (rowsOfRank.every((rows) => rows === own)) {
      this.device.launch("communication", "ncclAllGather", () => [
        this.comm,
        out.address,
        part.address,
        own * columns,
        deviceDtypes[part.dtype],
      ]);
      return;
    }
    const receives = rowsOfRank.map((rows, rank) => ({
      address: out.address + rangeOf(rowsOfRank, rank).start * rowBytes,
      bytes: rows * rowBytes,
      rank,
    }));
    const sends = rowsOfRank.map((_, rank) => ({ address: part.address, bytes: own * rowBytes, rank }));
    this.exchange(sends, receives);
  }

  /** All messages at once, on the compute stream or the copy stream. */
  exchange(sends: readonly Message[], receives: readonly Message[], stream: "compute" | "copy" = "compute"): void {
    const columns = (messages: readonly Message[]) => [
      messages.map(({ address }) => address),
      messages.map(({ bytes }) => bytes),
      messages.map(({ rank }) => rank),
      messages.length,
    ];
    this.device.launch(
      "communication",
      "ncclExchange",
      () => [this.comm, ...columns(sends), ...columns(receives)],
      stream,
    );
  }

  barrier(): void {
    const { address } = this.#barrierWord;
    this.device.launch("communication", "ncclAllReduce", () => [this.comm, address, address, 1, deviceDtypes.fp32]);
  }

  close(): void {
    clearInterval(this.#check);
    this.device.kernels.call("ncclDestroy", this.comm);
  }
}
