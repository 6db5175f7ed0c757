import {
  checkNccl,
  joinNccl,
  leaveNccl,
  type NcclMessage,
  ncclAllGather,
  ncclAllReduce,
  ncclExchange,
  ncclUniqueId,
} from "../../ops/nccl.js";
import type { Handle } from "../../runtime/abi.js";
import type { Device, StreamName } from "../../runtime/device.js";
import type { Tensor } from "../../runtime/tensor.js";
import type { Store } from "../../store.js";

const CHECK_EVERY_MS = 1000;

/** NCCL's connection between the ranks of a group: any hosts, one GPU per rank. Between CPUs it is TCP (kernels/cpu/tcp). */
export class Communicator {
  readonly #check: NodeJS.Timeout;

  private constructor(
    readonly device: Device,
    private readonly comm: Handle,
    readonly rank: number,
    private readonly name: string,
    /** The world's, in the group's order. */
    private readonly ranks: readonly number[],
  ) {
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
  ): Promise<Communicator> {
    const key = `nccl/${name}/${ranks.join(",")}`;
    if (rank === 0) {
      await store.put(key, ncclUniqueId(device));
    }
    const id = await store.get(key);
    const comm = await joinNccl(device, id, rank, ranks.length);
    return new Communicator(device, comm, rank, name, ranks);
  }

  get size(): number {
    return this.ranks.length;
  }

  /** Runs the body, whose launches a recording is to know as this exchange. @param to, from ranks of the group. */
  #exchanging(what: string, body: () => void, to: readonly number[] = [], from: readonly number[] = []): void {
    const { name, ranks } = this;
    const world = (own: readonly number[]) => [...new Set(own)].flatMap((rank) => ranks[rank] ?? []);
    this.device.exchanging(() => ({ what, group: name, ranks: [...ranks], to: world(to), from: world(from) }), body);
  }

  /** All ranks but this one, in order. */
  get others(): number[] {
    return Array.from({ length: this.size }, (_, rank) => rank).filter((rank) => rank !== this.rank);
  }

  /** All messages at once. */
  exchange(sends: readonly NcclMessage[], receives: readonly NcclMessage[], stream?: StreamName): void {
    const others = (messages: readonly NcclMessage[]) => messages.map(({ rank }) => rank);
    const body = () => ncclExchange(this.device, this.comm, sends, receives, stream);
    this.#exchanging("exchange", body, others(sends), others(receives));
  }

  /** out = every rank's x, `count` elements each, one after the other. */
  allGather(out: Tensor, x: Tensor, count: number): void {
    this.#exchanging("gather", () => ncclAllGather(this.device, this.comm, out, x, { count, ranks: this.size }));
  }

  /** x becomes the sum of every rank's x, each addition rounded to x's dtype. */
  allReduce(x: Tensor): void {
    this.#exchanging("all-reduce", () => ncclAllReduce(this.device, this.comm, x));
  }

  close(): void {
    clearInterval(this.#check);
    leaveNccl(this.device, this.comm);
  }
}
