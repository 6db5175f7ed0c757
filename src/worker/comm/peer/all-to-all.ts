import { copyMatrix } from "../../ops/copy.js";
import { waitFlags } from "../../ops/peer.js";
import type { Tensor } from "../../runtime/tensor.js";
import { exchangesOf, packedAt, partBytes } from "../all-to-all.js";
import type { Peers } from "./peers.js";
import { PeerRounds } from "./rounds.js";

/**
 * All-to-all over peer memory: a round in which each rank gets a part of its own. It is pushed into a slot of the receiver without
 * gaps between its rows, and moved from there to its place: each part crosses a link once, and the receiver's memory twice more.
 * A rank may be one exchange ahead of a peer.
 */
export class PeerAllToAll {
  readonly #rounds: PeerRounds;

  constructor(private readonly peers: Peers) {
    this.#rounds = new PeerRounds(peers, "all-to-all");
  }

  /** As Group.allToAll. */
  exchange(parts: readonly Tensor[], outs: readonly Tensor[]): void {
    const { device } = this.peers;
    const { own, others } = exchangesOf(this.peers, parts, outs);
    const at = (rank: number) => {
      const exchange = others.find((each) => each.rank === rank);
      if (!exchange) throw new RangeError(`The ${this.peers.name} group has no other rank ${rank}.`);
      return exchange;
    };
    const { arrivals, finish } = this.#rounds.start((rank) => at(rank).part, outs.map(partBytes));
    copyMatrix(device, own.out, own.part);
    for (const { rank, address, flag } of arrivals) {
      const { out } = at(rank);
      device.exchanging(
        () => this.peers.exchange("all-to-all", [], [rank]),
        () => waitFlags(device, [flag], { reset: true }),
      );
      copyMatrix(device, out, packedAt(address, out));
    }
    finish();
  }
}
