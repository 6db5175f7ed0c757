import { deviceDtypes } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { matrixShape, type Tensor } from "../runtime/tensor.js";
import { passOverRows } from "../runtime/work.js";

// Between images, latents or words and their tokens, and the tables of positions.

export interface PatchGrid {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly patch: number;
}

/** out [tokens, channels · patch²]: tokens firstToken … of the image [channels, height, width]. */
export function patchify(device: Device, out: Tensor, image: Tensor, grid: PatchGrid, firstToken: number): void {
  device.launch("patchify", {
    phase: "elementwise",
    work: () => passOverRows(out, image),
    args: () => [
      out.address,
      deviceDtypes[out.dtype],
      image.address,
      deviceDtypes[image.dtype],
      ...gridArguments(grid, firstToken, matrixShape(out).rows),
    ],
  });
}

/** The inverse of patchify. */
export function unpatchify(device: Device, image: Tensor, x: Tensor, grid: PatchGrid, firstToken: number): void {
  device.launch("unpatchify", {
    phase: "elementwise",
    work: () => passOverRows(x, image),
    args: () => [
      image.address,
      deviceDtypes[image.dtype],
      x.address,
      deviceDtypes[x.dtype],
      ...gridArguments(grid, firstToken, matrixShape(x).rows),
    ],
  });
}

function gridArguments(
  grid: PatchGrid,
  firstToken: number,
  tokens: number,
): [number, number, number, number, number, number] {
  return [grid.channels, grid.height, grid.width, grid.patch, firstToken, tokens];
}

/** out [tokens, channels · patch²]: tokens firstToken … of the latent [channels, frames, height, width]. */
export function patchifyVideo(device: Device, out: Tensor, latent: Tensor, patch: number, firstToken: number): void {
  device.launch("patchifyVideo", {
    phase: "elementwise",
    work: () => passOverRows(out, latent),
    args: () => [
      out.address,
      deviceDtypes[out.dtype],
      latent.address,
      deviceDtypes[latent.dtype],
      ...sizesOf(latent),
      patch,
      firstToken,
      matrixShape(out).rows,
    ],
  });
}

/** Tokens x [tokens, patch² · channels] (row, column, channel) from firstToken on -> the latent [channels, frames, height, width]. */
export function unpatchifyVideo(device: Device, latent: Tensor, x: Tensor, patch: number, firstToken: number): void {
  device.launch("unpatchifyVideo", {
    phase: "elementwise",
    work: () => passOverRows(x, latent),
    args: () => [
      latent.address,
      deviceDtypes[latent.dtype],
      x.address,
      deviceDtypes[x.dtype],
      ...sizesOf(latent),
      patch,
      firstToken,
      matrixShape(x).rows,
    ],
  });
}

/** Channels, frames, height and width. */
function sizesOf({ shape }: Tensor): [number, number, number, number] {
  const [channels = 1, frames = 1, height = 1, width = 1] = shape;
  return [channels, frames, height, width];
}

/** out [rows, columns] = table[ids], ids int32 [rows]; an id outside of the table gives NaN. */
export function gatherRows(device: Device, out: Tensor, table: Tensor, ids: Tensor): void {
  const { rows, columns } = matrixShape(out);
  device.launch("gatherRows", {
    phase: "elementwise",
    work: () => passOverRows(out, table),
    args: () => [
      out.address,
      deviceDtypes[out.dtype],
      table.address,
      deviceDtypes[table.dtype],
      matrixShape(table).rows,
      ids.address,
      rows,
      columns,
    ],
  });
}

/** out [rows, width]: the sin-cos embedding of positions [rows] (float32). */
export function sincosEmbedding(device: Device, out: Tensor, positions: Tensor): void {
  const { rows, columns } = matrixShape(out);
  device.launch("sincosEmbedding", {
    phase: "elementwise",
    work: () => passOverRows(out),
    args: () => [out.address, deviceDtypes[out.dtype], positions.address, rows, columns, 0, columns],
  });
}

/** out [tokens, columns]: columns firstColumn … of the two-dimensional sin-cos table of this width, for tokens firstToken … of a grid. */
export function sincos2d(
  device: Device,
  out: Tensor,
  table: { gridWidth: number; width: number; firstToken: number; firstColumn: number },
): void {
  const { rows, columns } = matrixShape(out);
  device.launch("sincos2d", {
    phase: "elementwise",
    work: () => passOverRows(out),
    args: () => [
      out.address,
      deviceDtypes[out.dtype],
      table.gridWidth,
      table.firstToken,
      rows,
      table.width,
      table.firstColumn,
      columns,
    ],
  });
}

/** out [tokens, headDim] (float32): the rotary table of tokens firstToken … of a grid of gridHeight × gridWidth per frame. */
export function rope3d(
  device: Device,
  out: Tensor,
  grid: { readonly gridHeight: number; readonly gridWidth: number },
  firstToken: number,
): void {
  const { rows, columns } = matrixShape(out);
  device.launch("rope3d", {
    phase: "elementwise",
    work: () => passOverRows(out),
    args: () => [out.address, grid.gridHeight, grid.gridWidth, firstToken, rows, columns],
  });
}
