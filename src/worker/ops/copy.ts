import type { Phase } from "../../protocol/results.js";
import { type Address, deviceDtypes } from "../runtime/abi.js";
import type { Device, StreamName } from "../runtime/device.js";
import { dtypeBytes, elements, type Tensor, tensorBytes } from "../runtime/tensor.js";
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

/** Bytes from one address to another, either of them a peer's. */
export function copyBytes(device: Device, to: Address, from: Address, bytes: number, stream?: StreamName): void {
  device.launch("copy", { phase: "communication", work: () => moved(bytes), args: () => [to, from, bytes], stream });
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
  { rows, rowBytes, phase = "elementwise" }: { rows: number; rowBytes: number; phase?: Phase },
): void {
  device.launch("copy2d", {
    phase,
    work: () => streamed(rows, rowBytes, 2),
    args: () => [to.address, to.pitch, from.address, from.pitch, rowBytes, rows],
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
