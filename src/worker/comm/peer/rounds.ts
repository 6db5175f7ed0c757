import { copyMatrix } from "../../ops/copy.js";
import { waitFlags, writeFlags } from "../../ops/peer.js";
import type { Address } from "../../runtime/abi.js";
import type { Tensor } from "../../runtime/tensor.js";
import type { Peers } from "./peers.js";

/** Another rank's message on its way to this one: it lies at `address` once the word at `flag` is 1. */
export interface Arrival {
  /** Of the group. */
  readonly rank: number;
  readonly address: Address;
  readonly flag: Address;
}

/** What one rank sends to each other and receives from it. */
export interface Delivery {
  /** In ring order: the rank before this one first. */
  readonly arrivals: readonly Arrival[];
  /** Once what reads the arrivals is queued on the compute stream, and their flags are 0 again: lets the ranks send again, and this rank reuse its messages' memory. */
  finish(): void;
}

/**
 * Rounds of messages over peer memory, with copy engines only: every rank pushes its message straight to each peer, to the next
 * rank first, so that at step s each rank receives from the one s before it and no link carries two messages at once.
 * Slots of even and odd rounds take turns, so a peer may still read one round while the next arrives.
 */
export class PeerRounds {
  #round = 0;

  /** @param name of its memory: rounds of one name share it, and all ranks use them in the same order. */
  constructor(
    private readonly peers: Peers,
    private readonly name: string,
  ) {}

  /**
   * Queues this rank's sends on the copy stream, behind what the compute stream holds.
   * @param messageTo what goes to a rank: a matrix whose rows may be strided; it arrives without gaps.
   * @param bytesFrom what comes from each rank; the peer slot for it must be as large.
   */
  start(messageTo: (rank: number) => Tensor, bytesFrom: readonly number[]): Delivery {
    const { peers } = this;
    const { device, rank, size } = peers;
    const turns = [this.#slots(0, bytesFrom), this.#slots(1, bytesFrom)] as const;
    const slots = turns[this.#round++ % 2 === 0 ? 0 : 1];
    const at = (r: number) => {
      const slot = slots[r];
      if (slot === undefined) throw new RangeError(`The ${peers.name} group has no rank ${r}.`);
      return slot;
    };

    device.waitFor("copy", device.mark("compute"));
    for (let step = 1; step < size; step++) {
      const to = (rank + step) % size;
      const message = messageTo(to);
      const place = { ...message, address: peers.blockAt(at(rank).block, to), rowStride: message.shape.at(-1) ?? 1 };
      waitFlags(device, [peers.flagAt(at(to).free)], { reset: true, stream: "copy" });
      device.exchanging(
        () => peers.exchange(this.name, [to]),
        () => copyMatrix(device, place, message, "copy"),
      );
      writeFlags(device, [peers.flagAt(at(rank).full, to)], 1, "copy");
    }
    const sent = device.mark("copy");

    const sources = Array.from({ length: size - 1 }, (_, i) => (rank - i - 1 + size) % size);
    const arrivals = sources.map((r) => ({
      rank: r,
      address: peers.blockAt(at(r).block),
      flag: peers.flagAt(at(r).full),
    }));
    const finish = () => {
      const credits = sources.map((r) => peers.flagAt(at(rank).free, r));
      writeFlags(device, credits, 1);
      // Nothing may overwrite the message before it has been sent.
      device.waitFor("compute", sent);
    };
    return { arrivals, finish };
  }

  /** What even (0) or odd (1) rounds receive into: a slot for each rank's message, and the flags that guard it. */
  #slots(turn: 0 | 1, bytesFrom: readonly number[]) {
    const { peers, name } = this;
    return peers.all.map((rank) => ({
      block: peers.block(`${name}/${turn}/${rank}`, bytesFrom[rank] ?? 0),
      /** Here: this rank's message has arrived. */
      full: peers.flag(`${name}/${turn}/full/${rank}`),
      /** Here: this rank has read what was sent to it (a credit). */
      free: peers.flag(`${name}/${turn}/free/${rank}`, true),
    }));
  }
}
