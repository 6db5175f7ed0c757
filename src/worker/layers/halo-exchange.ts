import type { Context } from "../comm/context.js";
import { NcclGroup } from "../comm/nccl-group.js";
import { PeerGroup } from "../comm/peer-group.js";
import { peerExchange } from "../ops/peer.js";
import { PEER_BLOCKS } from "../runtime/abi.js";
import { dtypeBytes, type Tensor } from "../runtime/tensor.js";

/** Which neighbours of the world a rank's strip of rows has: 1 or 0 rows of theirs above and below its own. */
export interface Neighbours {
  readonly top: 0 | 1;
  readonly bottom: 0 | 1;
}

/**
 * Neighbouring ranks hold neighbouring strips of rows of a volume [frames, top + rows + bottom, width, channels]. An exchange
 * fills the row above and the row below with the neighbours' nearest rows. Every rank that has neighbours calls it, in the
 * same order.
 */
export interface HaloExchange {
  exchange(volume: Tensor, neighbours: Neighbours): void;
}

/** Between the neighbours of the context's world group, over its transport. Reserves peer memory: make it on every rank alike. */
export function makeHaloExchange(context: Context): HaloExchange {
  const { world } = context;
  if (world instanceof PeerGroup) return new PeerHalo(context, world);
  if (world instanceof NcclGroup) return new NcclHalo(world);
  return { exchange: () => {} };
}

type Side = "above" | "below";

/** The rows that travel: of each frame one run of rowBytes, framePitch bytes from frame to frame. */
function boundaryOf(volume: Tensor, { top, bottom }: Neighbours) {
  const [frames = 0, height = 0, width = 0, channels = 0] = volume.shape;
  const rowBytes = width * channels * dtypeBytes(volume.dtype);
  const row = (index: number) => volume.address + index * rowBytes;
  const sides: { side: Side; opposite: Side; step: -1 | 1; own: number; halo: number }[] = [];
  if (top) sides.push({ side: "above", opposite: "below", step: -1, own: row(1), halo: row(0) });
  if (bottom) sides.push({ side: "below", opposite: "above", step: 1, own: row(height - 2), halo: row(height - 1) });
  return { frames, rowBytes, framePitch: height * rowBytes, sides };
}

/**
 * In one launch each rank pushes its boundary rows into a slot of its neighbour's memory, and moves what the neighbour has pushed
 * into its own volume. Two slots take turns, so that a rank may push the next rows while its neighbour still moves the last.
 */
class PeerHalo implements HaloExchange {
  constructor(
    private readonly context: Context,
    private readonly world: PeerGroup,
  ) {
    // Ranks without rows never exchange, but the ranks' heaps must be laid out alike.
    this.#places(0);
  }

  exchange(volume: Tensor, neighbours: Neighbours): void {
    const { device, heap } = this.context;
    const { frames, rowBytes, framePitch, sides } = boundaryOf(volume, neighbours);
    if (sides.length === 0) return;
    const places = this.#places(frames * rowBytes);
    const here = this.world.worldRank(this.world.rank);
    const list = () =>
      sides.map(({ side, opposite, step, own, halo }) => {
        const there = this.world.worldRank(this.world.rank + step);
        return {
          send: own,
          receive: halo,
          theirEven: heap.blockAddress(places[opposite].even, there),
          theirOdd: heap.blockAddress(places[opposite].odd, there),
          ownEven: heap.blockAddress(places[side].even, here),
          ownOdd: heap.blockAddress(places[side].odd, here),
          theirSignals: heap.flagAddress(places[opposite].signals, there),
          ownSignals: heap.flagAddress(places[side].signals, here),
        };
      });
    peerExchange(device, list, { pitch: framePitch, rowBytes, rows: frames });
  }

  /** On every rank: slots for what the neighbour above (below) sends, and the signals of the two. */
  #places(bytes: number) {
    const { heap } = this.context;
    const place = (side: Side) => ({
      even: heap.block(`halo/${side}/even`, bytes),
      odd: heap.block(`halo/${side}/odd`, bytes),
      signals: heap.words(`halo/${side}/signals`, 2 * PEER_BLOCKS),
    });
    return { above: place("above"), below: place("below") };
  }
}

/** One grouped exchange, straight between the volumes: a message per frame. */
class NcclHalo implements HaloExchange {
  constructor(private readonly world: NcclGroup) {}

  exchange(volume: Tensor, neighbours: Neighbours): void {
    const { frames, rowBytes, framePitch, sides } = boundaryOf(volume, neighbours);
    if (sides.length === 0) return;
    const messages = (place: "own" | "halo") =>
      sides.flatMap((side) =>
        Array.from({ length: frames }, (_, frame) => ({
          address: side[place] + frame * framePitch,
          bytes: rowBytes,
          rank: this.world.rank + side.step,
        })),
      );
    this.world.exchange(messages("own"), messages("halo"));
  }
}
