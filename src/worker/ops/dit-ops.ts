import { deviceDtypes } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { matrixShape, type Tensor } from "../runtime/tensor.js";

// The operators that only the DiT needs, between its image and its tokens: tensors in, one launch on the compute stream.

export interface PatchGrid {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly patch: number;
}

/** out [tokens, channels · patch²]: tokens firstToken … of the image [channels, height, width]. */
export function patchify(device: Device, out: Tensor, image: Tensor, grid: PatchGrid, firstToken: number): void {
  device.launch("elementwise", "patchify", () => [
    out.address,
    deviceDtypes[out.dtype],
    image.address,
    deviceDtypes[image.dtype],
    ...gridArguments(grid, firstToken, matrixShape(out).rows),
  ]);
}

/** The inverse of patchify. */
export function unpatchify(device: Device, image: Tensor, x: Tensor, grid: PatchGrid, firstToken: number): void {
  device.launch("elementwise", "unpatchify", () => [
    image.address,
    deviceDtypes[image.dtype],
    x.address,
    deviceDtypes[x.dtype],
    ...gridArguments(grid, firstToken, matrixShape(x).rows),
  ]);
}

function gridArguments(grid: PatchGrid, firstToken: number, tokens: number): number[] {
  return [grid.channels, grid.height, grid.width, grid.patch, firstToken, tokens];
}

/** out [rows, width]: the sin-cos embedding of positions [rows] (float32). */
export function sincosEmbedding(device: Device, out: Tensor, positions: Tensor): void {
  const { rows, columns } = matrixShape(out);
  device.launch("elementwise", "sincosEmbedding", () => [
    out.address,
    deviceDtypes[out.dtype],
    positions.address,
    rows,
    columns,
    0,
    columns,
  ]);
}

/** out [tokens, columns]: columns firstColumn … of the two-dimensional sin-cos table of this width, for tokens firstToken … of a grid. */
export function sincos2d(
  device: Device,
  out: Tensor,
  table: { gridWidth: number; width: number; firstToken: number; firstColumn: number },
): void {
  const { rows, columns } = matrixShape(out);
  device.launch("elementwise", "sincos2d", () => [
    out.address,
    deviceDtypes[out.dtype],
    table.gridWidth,
    table.firstToken,
    rows,
    table.width,
    table.firstColumn,
    columns,
  ]);
}

/** out[r, c] = x[r, c] + table[r, c] + vector[c]; all contiguous and of one dtype. */
export function addRows(device: Device, out: Tensor, x: Tensor, table: Tensor, vector: Tensor): void {
  const { rows, columns } = matrixShape(x);
  device.launch("elementwise", "addRows", () => [
    out.address,
    x.address,
    table.address,
    vector.address,
    rows,
    columns,
    deviceDtypes[x.dtype],
  ]);
}
