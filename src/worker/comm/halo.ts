import { dtypeBytes, type Tensor } from "../runtime/tensor.js";

/** Which neighbours of the group a rank's strip of rows has: 1 or 0 rows of theirs above and below its own. */
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

export type Side = "above" | "below";

/** The rows that travel: of each frame one run of rowBytes, framePitch bytes from frame to frame; step leads to the neighbour's rank. */
export function boundaryOf(volume: Tensor, { top, bottom }: Neighbours) {
  const [frames = 0, height = 0, width = 0, channels = 0] = volume.shape;
  const rowBytes = width * channels * dtypeBytes(volume.dtype);
  const row = (index: number) => volume.address + index * rowBytes;
  const sides: { side: Side; opposite: Side; step: -1 | 1; own: number; halo: number }[] = [];
  if (top) sides.push({ side: "above", opposite: "below", step: -1, own: row(1), halo: row(0) });
  if (bottom) sides.push({ side: "below", opposite: "above", step: 1, own: row(height - 2), halo: row(height - 1) });
  return { frames, rowBytes, framePitch: height * rowBytes, sides };
}
