import { z } from "zod";
import { DitrunError } from "../../../failure.js";
import { closeMemory, exportMemory, openMemory } from "../../ops/peer.js";
import type { Address } from "../../runtime/abi.js";
import { alignUp } from "../../runtime/arena.js";
import type { Device } from "../../runtime/device.js";
import { tensor } from "../../runtime/tensor.js";
import type { Store } from "../../store.js";

const FLAG_BYTES = 4;

/** A 32-bit word on every rank, or the first of several, at the same offset of every rank's heap (kernels/include/ditrun.h, flags). */
export interface Flag {
  readonly offset: number;
}

/** Memory at the same offset of every rank's heap; the offset is known once the heap is open. */
export interface HeapBlock {
  readonly name: string;
  bytes: number;
  offset: number;
}

/** What one rank tells the others about its heap. */
const announcement = z.object({
  flags: z.array(z.string()),
  blocks: z.array(z.object({ name: z.string(), bytes: z.number() })),
});

/**
 * A block of memory on every rank of this host that all of them can read and write (CUDA IPC, or shared memory on CPU).
 * Reservations are made while the first forward is measured, by the same calls in the same order on every rank; `open` then
 * allocates the block, exchanges handles through the store and maps the peers' blocks.
 */
export class PeerHeap {
  readonly #blocks = new Map<string, HeapBlock>();
  readonly #flags = new Map<string, Flag>();
  /** Words of all flags. */
  #flagWords = 0;
  /** Flags that are 1 before anything has happened: credits. */
  readonly #credits: Flag[] = [];
  /** Where each rank's heap lies, by world rank. */
  #bases: Map<number, Address> | undefined;

  /** @param ranks the world ranks of this host, this one among them: the same list on each of them. */
  constructor(
    private readonly device: Device,
    private readonly store: Store,
    private readonly ranks: readonly number[],
  ) {}

  /** The block of this name, at least `bytes` long on every rank. */
  block(name: string, bytes: number): HeapBlock {
    const known = this.#blocks.get(name);
    if (known && bytes <= known.bytes) return known;
    this.#mustBeReserving(`${bytes} bytes of peer memory for ${name}`);
    if (known) {
      known.bytes = bytes;
      return known;
    }
    const block = { name, bytes, offset: 0 };
    this.#blocks.set(name, block);
    return block;
  }

  /** The flag of this name; `credit` flags start at 1. */
  flag(name: string, credit = false): Flag {
    const known = this.#flags.get(name);
    if (known) return known;
    const flag = this.words(name, 1);
    if (credit) this.#credits.push(flag);
    return flag;
  }

  /** So many words of this name, which start at 0. */
  words(name: string, count: number): Flag {
    const known = this.#flags.get(name);
    if (known) return known;
    this.#mustBeReserving(`Flag ${name}`);
    const flag = { offset: this.#flagWords * FLAG_BYTES };
    this.#flagWords += count;
    this.#flags.set(name, flag);
    return flag;
  }

  /** Bytes that have been asked for so far. */
  get reservedBytes(): number {
    const blocks = [...this.#blocks.values()].reduce((sum, { bytes }) => sum + alignUp(bytes), 0);
    return blocks + alignUp(this.#flagWords * FLAG_BYTES);
  }

  #mustBeReserving(what: string): void {
    if (this.#bases) throw new Error(`${what} was not reserved while the forward was measured.`);
  }

  /** Where a block lies on a rank of the world. 0 while measuring. */
  blockAddress(block: HeapBlock, worldRank: number): Address {
    return this.#bases ? this.#base(worldRank) + block.offset : 0;
  }

  flagAddress(flag: Flag, worldRank: number): Address {
    return this.#bases ? this.#base(worldRank) + flag.offset : 0;
  }

  #base(worldRank: number): Address {
    const base = this.#bases?.get(worldRank);
    if (base === undefined) throw new Error(`Rank ${worldRank} has no peer heap.`);
    return base;
  }

  /**
   * Allocates and maps; a second call does nothing. A block is as long as the rank that needs most of it asked for.
   * @throws DitrunError when ranks reserved differently or a peer's memory cannot be mapped.
   */
  async open(): Promise<void> {
    if (this.#bases) return;
    const { device, store } = this;
    const bytes = await this.#agreeOnLayout();
    if (this.#flags.size === 0 && this.#blocks.size === 0) {
      this.#bases = new Map();
      return;
    }
    const own = device.allocatePersistent("e4m3", [bytes], "peer").address;
    device.clear(tensor(own, "u8", [this.#flagWords * FLAG_BYTES]));
    const one = new Uint8Array(new Uint32Array([1]).buffer);
    for (const { offset } of this.#credits) {
      await device.upload(tensor(own + offset, "u8", [FLAG_BYTES]), one);
    }
    await device.synchronize();

    await store.put(`heap/${store.rank}/handle`, exportMemory(device, own));
    this.#bases = new Map([[store.rank, own]]);
    for (const rank of this.#others) {
      this.#bases.set(rank, openMemory(device, await store.get(`heap/${rank}/handle`)));
    }
    // Nobody may write a peer's flag before that peer has set its credits.
    await store.barrier("heap");
  }

  /** Takes the largest size of each block over all ranks, lays the heap out, and returns its bytes. */
  async #agreeOnLayout(): Promise<number> {
    const { store } = this;
    const own = {
      flags: [...this.#flags.keys()],
      blocks: [...this.#blocks.values()].map(({ name, bytes }) => ({ name, bytes })),
    };
    await store.put(`heap/${store.rank}/layout`, new TextEncoder().encode(JSON.stringify(own)));
    for (const rank of this.#others) {
      const message = new TextDecoder().decode(await store.get(`heap/${rank}/layout`));
      const theirs = announcement.parse(JSON.parse(message));
      const names = (layout: typeof theirs) => JSON.stringify([layout.flags, layout.blocks.map(({ name }) => name)]);
      if (names(theirs) !== names(own)) {
        throw new DitrunError(
          "ERR_PEER_MEMORY",
          `Rank ${rank} and rank ${store.rank} use different peer memory (${theirs.blocks.length} and ${own.blocks.length} blocks): their plans or models differ.`,
        );
      }
      for (const { name, bytes } of theirs.blocks) this.block(name, bytes);
    }
    let end = alignUp(this.#flagWords * FLAG_BYTES);
    for (const block of this.#blocks.values()) {
      block.offset = end;
      end += alignUp(block.bytes);
    }
    return end;
  }

  /** Unmaps the peers' blocks once no rank uses them any more. */
  async close(): Promise<void> {
    if (!this.#bases) return;
    await this.store.barrier("heap/close");
    for (const rank of this.#others) {
      const base = this.#bases.get(rank);
      if (base !== undefined) closeMemory(this.device, base);
    }
    this.#bases = undefined;
  }

  get #others(): number[] {
    return this.ranks.filter((rank) => rank !== this.store.rank);
  }
}
