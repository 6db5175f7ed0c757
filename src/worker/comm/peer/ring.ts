import { writeFlags } from "../../ops/peer.js";
import type { Address } from "../../runtime/abi.js";
import { tensor } from "../../runtime/tensor.js";
import type { Ring, Round } from "../ring.js";
import type { Peers } from "./peers.js";
import { PeerRounds } from "./rounds.js";

/**
 * Over peer memory: one step for all messages, which the launch that reads them waits for one by one. Direct sends need no
 * forwarding, since every pair of GPUs of a host is linked.
 */
export class PeerRing implements Ring {
  readonly #rounds: PeerRounds;

  constructor(private readonly peers: Peers) {
    this.#rounds = new PeerRounds(peers, "ring");
  }

  start(message: Address, bytesOfRank: readonly number[]): Round {
    const { device, rank } = this.peers;
    const own = tensor(message, "u8", [bytesOfRank[rank] ?? 0]);
    const { arrivals, finish } = this.#rounds.start(() => own, bytesOfRank);
    const froms = arrivals.map((arrival) => arrival.rank);
    const reading = <T>(body: () => T) => device.exchanging(() => this.peers.exchange("ring", [], froms), body);
    return {
      steps: [{ messages: [{ rank, address: message }, ...arrivals], hold: () => {}, reading }],
      finish: () => {
        writeFlags(
          device,
          arrivals.map(({ flag }) => flag),
          0,
        );
        finish();
      },
    };
  }
}
