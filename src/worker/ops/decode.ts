import { type Address, type DecodeArgs, deviceDtypes, storedKinds } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { addressOf, dtypeBytes, matrixShape, type Tensor } from "../runtime/tensor.js";
import { streamed } from "../runtime/work.js";

/** How a file stores numbers, by the names of safetensors' and GGUF's dtypes. */
export type StoredKind = keyof typeof storedKinds;

/** The kind of this name; undefined where no kernel decodes it. */
export function storedKindOf(dtype: string): StoredKind | undefined {
  return isStoredKind(dtype) ? dtype : undefined;
}

const isStoredKind = (dtype: string): dtype is StoredKind => Object.hasOwn(storedKinds, dtype);

/** Rows as a file stores them. */
export interface StoredRows {
  readonly kind: StoredKind;
  /** Bytes from one row to the next. */
  readonly rowBytes: number;
  /** The column that becomes the first. */
  readonly firstColumn?: number;
}

/**
 * What ditrun_decode is told of rows and of where they go, but for where they are: out [rows, columns] in fp32, bf16 or fp16, or in
 * e4m3 with row scales, quantised as quantizeRows does it, but stored F8_E4M3 keeps its bytes.
 * @param squares float32 [rows], of e4m3 only: each row's sum of squares before it is quantised.
 */
export function decodeArgs(
  out: Tensor,
  { kind, rowBytes, firstColumn = 0 }: StoredRows,
  squares: Tensor | undefined,
): DecodeArgs {
  const { rows, columns } = matrixShape(out);
  return {
    ...{ out: out.address, x: 0, scale: 0, outScale: addressOf(out.rowScale), squares: addressOf(squares) },
    ...{ rowBytes, ldo: out.rowStride, columns, firstColumn, rows },
    ...{ stored: storedKinds[kind], scaleRows: 0, outDtype: deviceDtypes[out.dtype] },
  };
}

/** out = the stored rows that lie at this address of the device, times scale: float32, one number or one for each row. */
export function decode(
  device: Device,
  out: Tensor,
  stored: StoredRows & { readonly address: Address; readonly scale?: Tensor; readonly squares?: Tensor },
): void {
  const { rows, columns } = matrixShape(out);
  const { scale, squares } = stored;
  device.launch("decode", {
    phase: "elementwise",
    work: () => streamed(rows, columns, dtypeBytes(out.dtype), rows * stored.rowBytes),
    args: () => [
      {
        ...decodeArgs(out, stored, squares),
        ...{ x: stored.address, scale: addressOf(scale), scaleRows: scale && matrixShape(scale).columns > 1 ? 1 : 0 },
      },
    ],
  });
}
