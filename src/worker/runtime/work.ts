import { type DType, dtypeBytes, elements, matrixShape, type Tensor } from "./tensor.js";

/** What one launch has to do, whatever kernel does it. */
export interface Work {
  /** Floating-point operations of products and attention, 2 per multiply-add; what is done to single elements counts nothing. */
  readonly flops: number;
  /** Bytes read and written if every tensor crosses the memory once. Small vectors, such as a bias, count nothing. */
  readonly bytes: number;
  /** Of a product's or an attention's inputs. */
  readonly dtype?: DType;
  /** For people, to tell launches of one kernel apart. */
  readonly shape: string;
  /** Attention that waits inside for the blocks of a ring, and measures how long. */
  readonly waits?: boolean;
}

/** Of waiting and signalling, which move nothing. */
export const noWork: Work = { flops: 0, bytes: 0, shape: "" };

/** One pass over a matrix: so many bytes for each of its elements, read and written, and some more. */
export function streamed(rows: number, columns: number, bytesOfElement: number, more = 0): Work {
  const shape = rows === 1 ? `${columns}` : `${rows}×${columns}`;
  return { flops: 0, bytes: rows * columns * bytesOfElement + more, shape };
}

/** Bytes that are moved as they are: each is read once and written once, but for what `times` says. */
export function moved(bytes: number, times = 2): Work {
  return streamed(1, bytes, times);
}

/** One pass over tensors of one shape, each read or written whole. */
export function passOver(first: Tensor, ...others: readonly Tensor[]): Work {
  return streamed(1, elements(first.shape), bytesEach([first, ...others]));
}

/** The same over matrices, whose rows and columns it tells. */
export function passOverRows(first: Tensor, ...others: readonly Tensor[]): Work {
  const { rows, columns } = matrixShape(first);
  return streamed(rows, columns, bytesEach([first, ...others]));
}

function bytesEach(tensors: readonly Tensor[]): number {
  return tensors.reduce((sum, { dtype }) => sum + dtypeBytes(dtype), 0);
}
