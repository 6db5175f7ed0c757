import type { Phase } from "../../protocol/results.js";
import { type Address, deviceDtypes } from "../runtime/abi.js";
import type { Device, StreamName } from "../runtime/device.js";
import { dtypeBytes, elements, matrixShape, type Tensor, tensorBytes } from "../runtime/tensor.js";
import { moved, streamed } from "../runtime/work.js";

// What moves elements and changes none.

/** Contiguous bytes from one tensor to another of the same size. */
export function copy(device: Device, out: Tensor, x: Tensor, bytes: number, phase: Phase = "elementwise"): void {
  device.launch("copy", {
    phase,
    work: () => moved(bytes),
    args: () => [out.address, x.address, bytes],
  });
}

/** Whether the rows of a matrix lie one behind the other. */
export function isContiguous(x: Tensor): boolean {
  const { rows, columns } = matrixShape(x);
  return rows <= 1 || x.rowStride === columns;
}

/** out = x, matrices of one shape and dtype, either of them a peer's, whose rows may be strided: by copy engine. Nothing is launched for none. */
export function copyMatrix(device: Device, out: Tensor, x: Tensor, stream?: StreamName): void {
  const { rows, columns } = matrixShape(x);
  const rowBytes = columns * dtypeBytes(x.dtype);
  if (rows * rowBytes === 0) return;
  const bytes = rows * rowBytes;
  if (isContiguous(x) && isContiguous(out)) {
    const args = (): [number, number, number] => [out.address, x.address, bytes];
    device.launch("copy", { phase: "communication", work: () => moved(bytes), args, stream });
    return;
  }
  const pitch = ({ rowStride, dtype }: Tensor) => rowStride * dtypeBytes(dtype);
  const spaced = (matrix: Tensor) => ({ address: matrix.address, pitch: pitch(matrix) });
  copyRows(device, spaced(out), spaced(x), { rows, rowBytes, phase: "communication", stream });
}

/** A run of rows of as many bytes each, `pitch` bytes from one's start to the next's. */
export interface SpacedRows {
  readonly address: Address;
  readonly pitch: number;
}

/** Copies `rows` rows of rowBytes each. */
export function copyRows(
  device: Device,
  to: SpacedRows,
  from: SpacedRows,
  options: { rows: number; rowBytes: number; phase?: Phase; stream?: StreamName | undefined },
): void {
  const { rows, rowBytes, phase = "elementwise", stream } = options;
  device.launch("copy2d", {
    phase,
    work: () => streamed(rows, rowBytes, 2),
    args: () => [to.address, to.pitch, from.address, from.pitch, rowBytes, rows],
    stream,
  });
}

/** Zeros in a contiguous tensor. */
export function fillZero(device: Device, out: Tensor): void {
  const bytes = tensorBytes(out.dtype, out.shape);
  device.launch("fillZero", { phase: "elementwise", work: () => moved(bytes, 1), args: () => [out.address, bytes] });
}

/** out [batch, columns, rows] = the transpose of each matrix of x [batch, rows, columns]; contiguous. */
export function transpose(device: Device, out: Tensor, x: Tensor): void {
  const [rows = 1, columns = 1] = x.shape.slice(-2);
  const batch = elements(x.shape) / rows / columns;
  device.launch("transpose", {
    phase: "elementwise",
    work: () => streamed(batch * rows, columns, 2 * dtypeBytes(x.dtype)),
    args: () => [out.address, x.address, batch, rows, columns, deviceDtypes[x.dtype]],
  });
}
