import type { PeerGroup } from "../comm/peer-group.js";
import type { PeerHeap } from "../comm/peer-heap.js";
import { copyBytes } from "../ops/copy.js";
import { awaitFlags, writeFlags } from "../ops/peer.js";
import type { Address } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";

/** Another rank's message on its way to this one: it lies at `address` once the word at `flag` is 1. */
export interface Arrival {
  /** Of the group. */
  readonly rank: number;
  readonly address: Address;
  readonly flag: Address;
}

/** Every rank's message, on its way to every other. */
export interface Round {
  /** In ring order: the rank before this one first. */
  readonly arrivals: readonly Arrival[];
  /** Once what reads the arrivals is queued on the compute stream: lets the ranks send again, and this rank reuse its message's memory. */
  finish(): void;
}

/**
 * Rounds of messages over peer memory, with copy engines only: every rank pushes its message straight to each peer, to the next
 * rank first, so that at step s each rank receives from the one s before it and no link carries two messages at once.
 * Buffers of even and odd rounds take turns, so a peer may still read one round while the next arrives.
 */
export class PeerRounds {
  #round = 0;

  constructor(
    private readonly heap: PeerHeap,
    private readonly device: Device,
    private readonly group: PeerGroup,
  ) {}

  /** Queues this rank's sends on the copy stream, behind what the compute stream holds. @param bytesOfRank each rank's message. */
  start(message: Address, bytesOfRank: readonly number[]): Round {
    const { device, heap, group } = this;
    const { rank, size } = group;
    const slotBytes = Math.max(...bytesOfRank);
    const buffers = [this.#buffers(0, slotBytes), this.#buffers(1, slotBytes)] as const;
    const { slots, full, free } = buffers[this.#round++ % 2 === 0 ? 0 : 1];
    const world = (r: number) => group.worldRank(r);
    const at = <T>(list: readonly T[], r: number): T => {
      const item = list[r];
      if (item === undefined) throw new RangeError(`The ring has no rank ${r}.`);
      return item;
    };
    const here = world(rank);

    device.waitFor("copy", device.mark("compute"));
    const bytes = at(bytesOfRank, rank);
    for (let step = 1; step < size; step++) {
      const to = (rank + step) % size;
      const credit = heap.flagAddress(at(free, to), here);
      const destination = heap.blockAddress(at(slots, rank), world(to));
      const arrived = heap.flagAddress(at(full, rank), world(to));
      awaitFlags(device, [credit], { reset: true, stream: "copy" });
      copyBytes(device, destination, message, bytes, "copy");
      writeFlags(device, [arrived], 1, "copy");
    }
    const sent = device.mark("copy");

    const sources = Array.from({ length: size - 1 }, (_, i) => (rank - i - 1 + size) % size);
    const arrivals = sources.map((r) => ({
      rank: r,
      address: heap.blockAddress(at(slots, r), here),
      flag: heap.flagAddress(at(full, r), here),
    }));
    const finish = () => {
      const reset = arrivals.map(({ flag }) => flag);
      writeFlags(device, reset, 0);
      const credits = sources.map((r) => heap.flagAddress(at(free, rank), world(r)));
      writeFlags(device, credits, 1);
      // Nothing may overwrite the message before it has been sent.
      device.waitFor("compute", sent);
    };
    return { arrivals, finish };
  }

  /** What even (0) or odd (1) rounds receive into: a slot for each rank's message, and the flags that guard it. */
  #buffers(turn: 0 | 1, slotBytes: number) {
    const { heap } = this;
    const ranks = Array.from({ length: this.group.size }, (_, r) => r);
    return {
      slots: ranks.map((r) => heap.block(`ring/${turn}/${r}`, slotBytes)),
      /** full[r] here: rank r's message has arrived. */
      full: ranks.map((r) => heap.flag(`ring/${turn}/full/${r}`)),
      /** free[r] here: rank r has read what this rank sent it (a credit). */
      free: ranks.map((r) => heap.flag(`ring/${turn}/free/${r}`, true)),
    };
  }
}
