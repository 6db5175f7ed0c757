import { NcclGroup } from "../comm/nccl-group.js";
import { PeerGroup } from "../comm/peer-group.js";
import type { Context } from "../context.js";
import { dtypeBytes, type Tensor } from "../device/tensor.js";

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
 * Each rank pushes its boundary rows into a slot of its neighbour's memory and raises a flag there; the neighbour copies the
 * slot into its volume and gives a credit back. Two sets of slots take turns, so that a rank may push the next rows while
 * its neighbour still reads the last.
 */
class PeerHalo implements HaloExchange {
  #turn = 0;

  constructor(
    private readonly context: Context,
    private readonly world: PeerGroup,
  ) {
    // Ranks without rows never exchange, but the ranks' heaps must be laid out alike.
    this.#slots(0, 0);
    this.#slots(1, 0);
  }

  exchange(volume: Tensor, neighbours: Neighbours): void {
    const { device, heap } = this.context;
    const { frames, rowBytes, framePitch, sides } = boundaryOf(volume, neighbours);
    if (sides.length === 0) return;
    const slots = this.#slots(this.#turn++ % 2, frames * rowBytes);
    const here = this.world.worldRank(this.world.rank);
    const there = (step: -1 | 1) => this.world.worldRank(this.world.rank + step);

    const credits = sides.map(({ side }) => heap.flagAddress(slots[side].free, here));
    device.launch("communication", "flagsWait", () => [credits, credits.length, 1]);
    for (const { opposite, step, own } of sides) {
      const slot = heap.blockAddress(slots[opposite].block, there(step));
      device.launch("communication", "copy2d", () => [slot, rowBytes, own, framePitch, rowBytes, frames]);
    }
    const arrived = sides.map(({ opposite, step }) => heap.flagAddress(slots[opposite].full, there(step)));
    device.launch("communication", "flagsWrite", () => [arrived, arrived.length, 1]);

    const full = sides.map(({ side }) => heap.flagAddress(slots[side].full, here));
    device.launch("communication", "flagsWait", () => [full, full.length, 1]);
    for (const { side, halo } of sides) {
      const slot = heap.blockAddress(slots[side].block, here);
      device.launch("communication", "copy2d", () => [halo, framePitch, slot, rowBytes, rowBytes, frames]);
    }
    const free = sides.map(({ opposite, step }) => heap.flagAddress(slots[opposite].free, there(step)));
    device.launch("communication", "flagsWrite", () => [free, free.length, 1]);
  }

  /** On every rank: what the neighbour above (below) sends, whether it has come, and whether it may be replaced at the neighbour's. */
  #slots(turn: number, bytes: number) {
    const { heap } = this.context;
    const slot = (side: Side) => ({
      block: heap.block(`halo/${turn}/${side}`, bytes),
      full: heap.flag(`halo/${turn}/${side}/full`),
      /** The neighbour on this side has read what this rank sent it (a credit). */
      free: heap.flag(`halo/${turn}/${side}/free`, true),
    });
    return { above: slot("above"), below: slot("below") };
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
