import { activations, deviceDtypes } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { dtypeBytes, elements, matrixShape, type Tensor } from "../runtime/tensor.js";
import { passOver, passOverRows, streamed } from "../runtime/work.js";

// What is done to each element on its own, wherever it lies.

/** out = activation(x), element by element; out may be x. */
export function activate(device: Device, out: Tensor, x: Tensor, activation: keyof typeof activations): void {
  device.launch("activate", {
    phase: "elementwise",
    work: () => passOver(x, out),
    args: () => [out.address, x.address, elements(x.shape), deviceDtypes[x.dtype], activations[activation]],
  });
}

/** out = x + y, element by element, of one dtype; out may be x or y. */
export function add(device: Device, out: Tensor, x: Tensor, y: Tensor): void {
  device.launch("add", {
    phase: "elementwise",
    work: () => passOver(x, y, out),
    args: () => [out.address, x.address, y.address, elements(out.shape), deviceDtypes[out.dtype]],
  });
}

/** out = x · y, element by element; out may be x or y. */
export function multiply(device: Device, out: Tensor, x: Tensor, y: Tensor): void {
  device.launch("multiply", {
    phase: "elementwise",
    work: () => passOver(x, y, out),
    args: () => [out.address, x.address, y.address, elements(out.shape), deviceDtypes[out.dtype]],
  });
}

/** out[r, c] = x[r, c] + table[r, c] + vector[c]; all contiguous and of one dtype. */
export function addRows(device: Device, out: Tensor, x: Tensor, table: Tensor, vector: Tensor): void {
  const { rows, columns } = matrixShape(x);
  device.launch("addRows", {
    phase: "elementwise",
    work: () => passOverRows(x, table, out),
    args: () => [out.address, x.address, table.address, vector.address, rows, columns, deviceDtypes[x.dtype]],
  });
}

/** out [rows, columns] = x [rows, columns] + vector [columns], all contiguous and of one dtype. */
export function addVector(device: Device, out: Tensor, x: Tensor, vector: Tensor): void {
  const columns = elements(vector.shape);
  device.launch("addRows", {
    phase: "elementwise",
    work: () => streamed(elements(x.shape) / columns, columns, 2 * dtypeBytes(x.dtype)),
    args: () => [
      out.address,
      x.address,
      0,
      vector.address,
      elements(x.shape) / columns,
      columns,
      deviceDtypes[x.dtype],
    ],
  });
}

/** out = x + y · gate, gate float32 [columns]; x and out of one dtype, y of any; contiguous. out may be x. */
export function addGated(device: Device, out: Tensor, x: Tensor, y: Tensor, gate: Tensor): void {
  const { rows, columns } = matrixShape(x);
  device.launch("addGated", {
    phase: "elementwise",
    work: () => passOverRows(x, y, out),
    args: () => [
      out.address,
      x.address,
      deviceDtypes[x.dtype],
      y.address,
      deviceDtypes[y.dtype],
      gate.address,
      rows,
      columns,
    ],
  });
}

/** out = Σ coefficient · x, float32, in the order given; at most 8 terms; out may be one of them. */
export function combine(
  device: Device,
  out: Tensor,
  terms: readonly { readonly coefficient: number; readonly x: Tensor }[],
): void {
  device.launch("combine", {
    phase: "elementwise",
    work: () => streamed(1, elements(out.shape), 4 * (terms.length + 1)),
    args: () => [
      out.address,
      terms.map(({ x }) => x.address),
      terms.map(({ coefficient }) => coefficient),
      terms.length,
      elements(out.shape),
    ],
  });
}

/** out = x in the dtype of out, rounded once. */
export function cast(device: Device, out: Tensor, x: Tensor): void {
  device.launch("cast", {
    phase: "elementwise",
    work: () => passOver(x, out),
    args: () => [out.address, deviceDtypes[out.dtype], x.address, deviceDtypes[x.dtype], elements(x.shape)],
  });
}

/**
 * out (u8) = pixels of 8 bits: x (fp32 or bf16) from [-1, 1] to 0 … 255, clamped, rounded to nearest even.
 * @param nonfinite i32: becomes 1 where a pixel is NaN or infinite, else it stays.
 */
export function toBytes(device: Device, out: Tensor, x: Tensor, nonfinite: Tensor): void {
  device.launch("toBytes", {
    phase: "elementwise",
    work: () => passOver(x, out),
    args: () => [out.address, nonfinite.address, x.address, deviceDtypes[x.dtype], elements(x.shape)],
  });
}

/** count (one i32) = how many elements of x are NaN or infinite. */
export function countNonfinite(device: Device, count: Tensor, x: Tensor): void {
  device.launch("countNonfinite", {
    phase: "elementwise",
    work: () => passOver(x),
    args: () => [count.address, x.address, elements(x.shape), deviceDtypes[x.dtype]],
  });
}
