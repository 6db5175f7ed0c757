import { peerExchange } from "../../ops/peer.js";
import { PEER_BLOCKS } from "../../runtime/abi.js";
import type { Tensor } from "../../runtime/tensor.js";
import { boundaryOf, type HaloExchange, type Neighbours, type Side } from "../halo.js";
import type { Peers } from "./peers.js";

/**
 * In one launch each rank pushes its boundary rows into a slot of its neighbour's memory, and moves what the neighbour has pushed
 * into its own volume. Two slots take turns, so that a rank may push the next rows while its neighbour still moves the last.
 */
export class PeerHalo implements HaloExchange {
  constructor(private readonly peers: Peers) {
    // Ranks without rows never exchange, but the ranks' heaps must be laid out alike.
    this.#places(0);
  }

  exchange(volume: Tensor, neighbours: Neighbours): void {
    const { peers } = this;
    const { frames, rowBytes, framePitch, sides } = boundaryOf(volume, neighbours);
    if (sides.length === 0) return;
    const places = this.#places(frames * rowBytes);
    const there = sides.map(({ step }) => peers.rank + step);
    const args = () => ({
      neighbours: sides.map(({ side, opposite, step, own, halo }) => {
        const there = peers.rank + step;
        return {
          send: own,
          receive: halo,
          theirEven: peers.blockAt(places[opposite].even, there),
          theirOdd: peers.blockAt(places[opposite].odd, there),
          ownEven: peers.blockAt(places[side].even),
          ownOdd: peers.blockAt(places[side].odd),
          theirSignals: peers.flagAt(places[opposite].signals, there),
          ownSignals: peers.flagAt(places[side].signals),
        };
      }),
      pitch: framePitch,
      rowBytes,
      rows: frames,
      neighbourCount: sides.length,
    });
    peers.device.exchanging(
      () => peers.exchange("halo", there, there),
      () => peerExchange(peers.device, args),
    );
  }

  /** On every rank: slots for what the neighbour above (below) sends, and the signals of the two. */
  #places(bytes: number) {
    const { peers } = this;
    const place = (side: Side) => ({
      even: peers.block(`halo/${side}/even`, bytes),
      odd: peers.block(`halo/${side}/odd`, bytes),
      signals: peers.words(`halo/${side}/signals`, 2 * PEER_BLOCKS),
    });
    return { above: place("above"), below: place("below") };
  }
}
