import type { Expert } from "../../protocol/expert.js";
import { copy } from "../ops/copy.js";
import type { Device, StreamName } from "../runtime/device.js";
import { type Allocation, Region } from "../runtime/region.js";
import { type Tensor, tensor } from "../runtime/tensor.js";
import type { KeptWeights } from "./kept.js";

/** What is exchanged at once between two places of the device. */
const PIECE_BYTES = 64 * 2 ** 20;
/** Uploads of unpinned memory are as fast as the thread that feeds them. */
const lanes: readonly StreamName[] = ["compute", "copy", "aside"];

/** Where the expert waits that is not in place. */
export type Waiting = "device" | "host";

/**
 * Two transformers of the same sizes in the memory of one: that of the next steps is in place, where programs and graphs find it; the
 * other waits. On the device it waits in as much memory again, and the two are exchanged. On the host, copies of them are uploaded.
 */
export class Experts {
  #waiting: Waiting = "device";
  #inPlace: Expert | undefined;
  /** On the device: the other one, and room to exchange through. */
  readonly #beside = new Region();
  /** On the host: by allocation. */
  readonly #copies = new Map<Expert, readonly Uint8Array[]>();
  /** Numbers that belong to each one's parts. */
  readonly #numbers = new Map<Expert, readonly (readonly number[])[]>();

  /** @param mayReturn whether the first may be wanted again once the second has taken its place. */
  constructor(
    private readonly device: Device,
    private readonly kept: KeptWeights,
    private readonly mayReturn: boolean,
  ) {}

  /** Bytes of the device beside those that are in place. */
  get bytes(): number {
    return this.#beside.bytes;
  }

  get inPlace(): Expert | undefined {
    return this.#inPlace;
  }

  /** Bytes of the host that it holds. */
  get hostBytes(): number {
    return [...this.#copies.values()].flat().reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  /** Bytes that wait on the device for weights of so many. */
  static bytesBeside(weights: number): number {
    return weights + Math.min(weights, PIECE_BYTES);
  }

  /** Bytes of the host for weights of so many. */
  bytesOnHost(weights: number): number {
    return weights * (this.mayReturn ? 2 : 1);
  }

  /** The low one was loaded in place, the first of both: it goes aside, and the high one may be loaded where it was. */
  async setAside(waiting: Waiting): Promise<void> {
    this.#waiting = waiting;
    await this.note("low");
    this.#inPlace = undefined;
    if (waiting === "device") await this.#exchange();
  }

  /** What is in place was loaded or changed a moment ago, and is this one. The device must be idle. */
  async note(expert: Expert): Promise<void> {
    this.#inPlace = expert;
    this.#numbers.set(expert, this.kept.numbers);
    if (this.#waiting === "host") await this.#copy(expert, this.kept.allocations);
  }

  /**
   * Puts one in place. The device must be idle.
   * @returns false where there is no copy of it any more, and nothing was done: it has to be loaded anew.
   */
  async use(expert: Expert): Promise<boolean> {
    if (this.#inPlace === expert) return true;
    if (this.#waiting === "device") await this.#exchange();
    else {
      const copies = this.#copies.get(expert);
      if (!copies) return false;
      await this.#upload(copies);
    }
    this.#inPlace = expert;
    this.kept.numbers = this.#numbers.get(expert) ?? [];
    return true;
  }

  /** Makes room on the device. It must be idle. */
  async toHost(): Promise<void> {
    if (this.#waiting === "host") return;
    this.#waiting = "host";
    const [, ...beside] = this.#beside.allocations;
    if (this.#inPlace !== undefined) {
      await this.#copy(this.#inPlace, this.kept.allocations);
      await this.#copy(this.#inPlace === "high" ? "low" : "high", beside);
    }
    this.device.free(this.#beside);
  }

  /** Forgets both, and frees what waits. The device must be idle. */
  free(): void {
    this.device.free(this.#beside);
    this.#copies.clear();
    this.#numbers.clear();
    this.#inPlace = undefined;
  }

  async #copy(expert: Expert, allocations: readonly Allocation[]): Promise<void> {
    if (expert === "high" && !this.mayReturn) return;
    const copies: Uint8Array[] = [];
    for (const { address, bytes } of allocations)
      copies.push(await this.device.download(tensor(address, "e4m3", [bytes])));
    this.#copies.set(expert, copies);
  }

  async #upload(copies: readonly Uint8Array[]): Promise<void> {
    const places = [...this.kept.allocations.entries()];
    await Promise.all(
      lanes.map(async (stream) => {
        for (let next = places.shift(); next; next = places.shift()) {
          const [index, { address, bytes }] = next;
          const source = copies[index];
          if (source?.byteLength !== bytes) throw new Error("An expert's copy is not of what is in place.");
          await this.device.upload(tensor(address, "e4m3", [bytes]), source, stream);
        }
      }),
    );
  }

  /** Exchanges what is in place with what waits on the device. */
  async #exchange(): Promise<void> {
    const { device, kept } = this;
    const { allocations } = kept;
    if (this.#beside.allocations.length === 0) {
      await device.within(this.#beside, async () => {
        device.allocatePersistent("e4m3", [Math.min(kept.bytes, PIECE_BYTES)]);
        for (const { bytes } of allocations) device.allocatePersistent("e4m3", [bytes]);
      });
    }
    const [room, ...beside] = this.#beside.allocations;
    if (!room) throw new Error("There is no room to exchange weights through.");
    for (const [index, { address, bytes }] of allocations.entries()) {
      const other = beside[index];
      if (!other) throw new Error("What waits is not of what is in place.");
      for (let done = 0; done < bytes; done += room.bytes) {
        const count = Math.min(bytes - done, room.bytes);
        const at = (start: number): Tensor => tensor(start, "e4m3", [count]);
        const [here, there, between] = [at(address + done), at(other.address + done), at(room.address)];
        copy(device, between, here, count);
        copy(device, here, there, count);
        copy(device, there, between, count);
      }
    }
    await device.synchronize();
  }
}
