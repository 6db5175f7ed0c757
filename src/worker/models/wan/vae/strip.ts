import type { Group } from "../../../comm/group.js";
import type { HaloExchange, Neighbours } from "../../../comm/halo.js";
import { type Range, rangeOf, shares } from "../../../layers/split.js";
import { copyRows } from "../../../ops/copy.js";
import type { SpacedFrames } from "../../../ops/norm.js";
import type { Device } from "../../../runtime/device.js";
import { dtypeBytes, elements, partOf, type Tensor, tensor, tensorBytes } from "../../../runtime/tensor.js";

/**
 * The rows of every volume of a decode that this rank computes. Latent rows are divided over the ranks, blocks that differ by
 * one at most; upsampling doubles each rank's rows where they are. A volume that a convolution reads across rows is
 * allocated with a row of each neighbour around this rank's own. With one rank it is the whole volume.
 */
export class Strip implements Neighbours {
  /** Latent rows of each rank; ranks beyond the number of rows have none. */
  readonly rowsOfRank: readonly number[];
  readonly own: Range;
  readonly top: 0 | 1;
  readonly bottom: 0 | 1;

  constructor(
    latentRows: number,
    { rank, size }: Pick<Group, "rank" | "size">,
    private readonly halo: HaloExchange,
  ) {
    const ranks = Math.min(size, latentRows);
    this.rowsOfRank = [...shares(latentRows, ranks), ...Array<number>(size - ranks).fill(0)];
    this.own = rangeOf(this.rowsOfRank, rank);
    this.top = rank > 0 && rank < ranks ? 1 : 0;
    this.bottom = rank + 1 < ranks ? 1 : 0;
  }

  /** A volume that no other rank has a part of. */
  static whole(rows: number): Strip {
    return new Strip(rows, { rank: 0, size: 1 }, { exchange: () => {} });
  }

  /** Room for a volume [frames, rows, width, channels] and its neighbours' rows: [frames, top + rows + bottom, width, channels]. */
  allocate(device: Device, dtype: Tensor["dtype"], shape: readonly [number, number, number, number]): Tensor {
    const [frames, rows, width, channels] = shape;
    return device.allocate(dtype, [frames, this.top + rows + this.bottom, width, channels]);
  }

  /** This rank's own rows of one frame, [1, rows, width, channels]. */
  frame(volume: Tensor, index: number): Tensor {
    const [, height = 0, width = 0, channels = 0] = volume.shape;
    const { address, dtype } = partOf(volume, index);
    const skipped = tensorBytes(dtype, [this.top, width, channels]);
    return tensor(address + skipped, dtype, [1, height - this.top - this.bottom, width, channels]);
  }

  /** This rank's own rows of all frames. */
  frames(volume: Tensor): SpacedFrames {
    return { first: this.frame(volume, 0), count: volume.shape[0] ?? 0, stride: elements(volume.shape.slice(1)) };
  }

  /** The volume x (this rank's own rows) with room around it; x itself if there are no neighbours. */
  surround(device: Device, x: Tensor): Tensor {
    if (this.top + this.bottom === 0) return x;
    const [frames = 0, rows = 0, width = 0, channels = 0] = x.shape;
    const volume = this.allocate(device, x.dtype, [frames, rows, width, channels]);
    const to = this.frames(volume);
    const pitch = to.stride * dtypeBytes(x.dtype);
    const bytes = tensorBytes(x.dtype, to.first.shape);
    copyRows(
      device,
      { address: to.first.address, pitch },
      { address: x.address, pitch: bytes },
      { rows: frames, rowBytes: bytes },
    );
    return volume;
  }

  /** Fills the rows around this rank's own with the neighbours'. */
  exchange(volume: Tensor): void {
    this.halo.exchange(volume, this);
  }
}
