import { activations, deviceDtypes } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { elements, matrixShape, type Tensor } from "../runtime/tensor.js";

// The operators that Wan needs beyond ops.ts: tensors in, one launch on the compute stream.

export interface RmsNormOptions {
  /** [columns], or absent. */
  readonly weight?: Tensor | undefined;
  /** float32 [rows, headDim]: cos, sin of each adjacent pair in turn, the same for every head. */
  readonly rope?: Tensor | undefined;
  /** Where x holds only some columns of fullColumns: float32 [rows], Σ x² over all of them. */
  readonly sumSquares?: { readonly sums: Tensor; readonly fullColumns: number } | undefined;
  readonly activation?: keyof typeof activations;
  readonly epsilon: number;
}

/**
 * out = rotate(activation(x / √(mean x² + ε) · weight)) over the last dimension; out may be x, and may differ in dtype: e4m3 with
 * a scale per head, rowScale [rows · heads], as allocateByHead makes it.
 */
export function rmsNorm(device: Device, out: Tensor, x: Tensor, options: RmsNormOptions): void {
  const { weight, rope, sumSquares } = options;
  const { rows, columns } = matrixShape(x);
  const { rowScale } = out;
  const headDim = rowScale ? (rows * columns) / elements(rowScale.shape) : (rope?.shape.at(-1) ?? 0);
  device.launch("elementwise", "rmsNorm", () => [
    {
      x: x.address,
      weight: weight?.address ?? 0,
      out: rowScale ? 0 : out.address,
      quantized: rowScale ? out.address : 0,
      quantizedScale: rowScale?.address ?? 0,
      sumSquares: sumSquares?.sums.address ?? 0,
      rope: rope?.address ?? 0,
      ldx: x.rowStride,
      ldo: out.rowStride,
      groupStride: 0,
      rows,
      columns,
      fullColumns: sumSquares?.fullColumns ?? columns,
      headDim,
      groupRows: 0,
      xDtype: deviceDtypes[x.dtype],
      weightDtype: deviceDtypes[weight?.dtype ?? "fp32"],
      outDtype: deviceDtypes[rowScale ? "fp32" : out.dtype],
      activation: activations[options.activation ?? "identity"],
      epsilon: options.epsilon,
    },
  ]);
}

/** out [rows] (float32) = Σ x² of each row. */
export function rowSumSquares(device: Device, out: Tensor, x: Tensor): void {
  const { rows, columns } = matrixShape(x);
  device.launch("elementwise", "rowSumSquares", () => [
    out.address,
    x.address,
    x.rowStride,
    rows,
    columns,
    deviceDtypes[x.dtype],
  ]);
}

/** out [tokens, headDim] (float32): the rotary table of tokens firstToken … of a grid of gridHeight × gridWidth per frame. */
export function rope3d(
  device: Device,
  out: Tensor,
  grid: { readonly gridHeight: number; readonly gridWidth: number },
  firstToken: number,
): void {
  const { rows, columns } = matrixShape(out);
  device.launch("elementwise", "rope3d", () => [
    out.address,
    grid.gridHeight,
    grid.gridWidth,
    firstToken,
    rows,
    columns,
  ]);
}

/** out = x + y · gate, gate float32 [columns]; x and out of one dtype, y of any; contiguous. out may be x. */
export function addGated(device: Device, out: Tensor, x: Tensor, y: Tensor, gate: Tensor): void {
  const { rows, columns } = matrixShape(x);
  device.launch("elementwise", "addGated", () => [
    out.address,
    x.address,
    deviceDtypes[x.dtype],
    y.address,
    deviceDtypes[y.dtype],
    gate.address,
    rows,
    columns,
  ]);
}

/** out [rows, columns] = x [rows, columns] + vector [columns], all contiguous and of one dtype. */
export function addVector(device: Device, out: Tensor, x: Tensor, vector: Tensor): void {
  const columns = elements(vector.shape);
  device.launch("elementwise", "addRows", () => [
    out.address,
    x.address,
    0,
    vector.address,
    elements(x.shape) / columns,
    columns,
    deviceDtypes[x.dtype],
  ]);
}

/** out = x · y, element by element; out may be x or y. */
export function multiply(device: Device, out: Tensor, x: Tensor, y: Tensor): void {
  device.launch("elementwise", "multiply", () => [
    out.address,
    x.address,
    y.address,
    elements(out.shape),
    deviceDtypes[out.dtype],
  ]);
}

/** out = Σ coefficient · x, float32, in the order given; at most 8 terms; out may be one of them. */
export function combine(
  device: Device,
  out: Tensor,
  terms: readonly { readonly coefficient: number; readonly x: Tensor }[],
): void {
  device.launch("elementwise", "combine", () => [
    out.address,
    terms.map(({ x }) => x.address),
    terms.map(({ coefficient }) => coefficient),
    terms.length,
    elements(out.shape),
  ]);
}

/** out [rows, columns] = table[ids], ids int32 [rows]; an id outside of the table gives NaN. */
export function gatherRows(device: Device, out: Tensor, table: Tensor, ids: Tensor): void {
  const { rows, columns } = matrixShape(out);
  device.launch("elementwise", "gatherRows", () => [
    out.address,
    deviceDtypes[out.dtype],
    table.address,
    deviceDtypes[table.dtype],
    matrixShape(table).rows,
    ids.address,
    rows,
    columns,
  ]);
}

/** out [tokens, channels · patch²]: tokens firstToken … of the latent [channels, frames, height, width]. */
export function patchifyVideo(device: Device, out: Tensor, latent: Tensor, patch: number, firstToken: number): void {
  device.launch("elementwise", "patchifyVideo", () => [
    out.address,
    deviceDtypes[out.dtype],
    latent.address,
    deviceDtypes[latent.dtype],
    ...latent.shape,
    patch,
    firstToken,
    matrixShape(out).rows,
  ]);
}

/** Tokens x [tokens, patch² · channels] (row, column, channel) from firstToken on -> the latent [channels, frames, height, width]. */
export function unpatchifyVideo(device: Device, latent: Tensor, x: Tensor, patch: number, firstToken: number): void {
  device.launch("elementwise", "unpatchifyVideo", () => [
    latent.address,
    deviceDtypes[latent.dtype],
    x.address,
    deviceDtypes[x.dtype],
    ...latent.shape,
    patch,
    firstToken,
    matrixShape(x).rows,
  ]);
}
