import type { Address, deviceDtypes } from "./abi.js";

export type DType = keyof typeof deviceDtypes;

const sizes: Record<DType, number> = { fp32: 4, bf16: 2, e4m3: 1, fp16: 2, i32: 4, u8: 1 };

/** Bytes of one element. */
export function dtypeBytes(dtype: DType): number {
  return sizes[dtype];
}

/** A row-major array in device memory; it owns nothing. The last dimension is adjacent; only rows may be strided. */
export interface Tensor {
  readonly address: Address;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Elements from one row (index of the last dimension but one) to the next; shape's last entry if contiguous. */
  readonly rowStride: number;
  /** float32 [rows]: what each row of an e4m3 matrix is multiplied by. */
  readonly rowScale?: Tensor;
}

export function tensor(
  address: Address,
  dtype: DType,
  shape: readonly number[],
  rowStride = shape.at(-1) ?? 1,
): Tensor {
  return { address, dtype, shape, rowStride };
}

/** Where a tensor that may be absent lies; 0 is nowhere. */
export function addressOf(x: Tensor | undefined): Address {
  return x?.address ?? 0;
}

export function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function tensorBytes(dtype: DType, shape: readonly number[]): number {
  return elements(shape) * sizes[dtype];
}

/** Rows and columns of a tensor seen as a matrix: all but the last dimension, and the last. */
export function matrixShape(x: Tensor): { rows: number; columns: number } {
  const columns = x.shape.at(-1) ?? 1;
  return { rows: elements(x.shape.slice(0, -1)), columns };
}

/** A view of count rows of a matrix [rows, columns], from row start, with their scales if it has any. */
export function rowsOf(x: Tensor, start: number, count: number): Tensor {
  const { rows, columns } = matrixShape(x);
  if (start < 0 || count < 0 || start + count > rows) {
    throw new RangeError(`Rows ${start} to ${start + count} of a tensor [${x.shape.join(", ")}] do not exist.`);
  }
  const view = tensor(x.address + start * x.rowStride * sizes[x.dtype], x.dtype, [count, columns], x.rowStride);
  if (!x.rowScale) return view;
  const { address, dtype } = x.rowScale;
  return { ...view, rowScale: tensor(address + start * sizes[dtype], dtype, [count]) };
}

/** The part at this index of the first dimension of a contiguous tensor. */
export function partOf(x: Tensor, index: number): Tensor {
  const shape = x.shape.slice(1);
  if (index < 0 || index >= (x.shape[0] ?? 0)) {
    throw new RangeError(`Part ${index} of a tensor [${x.shape.join(", ")}] does not exist.`);
  }
  return tensor(x.address + index * tensorBytes(x.dtype, shape), x.dtype, shape);
}

/** Parts start, start + 1, … of the first dimension of a contiguous tensor. */
export function partsOf(x: Tensor, start: number, count: number): Tensor {
  const parts = x.shape[0] ?? 0;
  if (start < 0 || count < 0 || start + count > parts) {
    throw new RangeError(`Parts ${start} to ${start + count} of a tensor [${x.shape.join(", ")}] do not exist.`);
  }
  const rest = x.shape.slice(1);
  return tensor(x.address + start * tensorBytes(x.dtype, rest), x.dtype, [count, ...rest]);
}
