import { activations, deviceDtypes } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { addressOf, dtypeBytes, elements, matrixShape, type Tensor } from "../runtime/tensor.js";

// Products of matrices.

export interface GemmOptions {
  readonly bias?: Tensor | undefined;
  readonly residual?: Tensor | undefined;
  /** float32 [n]. */
  readonly gate?: Tensor | undefined;
  readonly activation?: keyof typeof activations;
  /** What the product is multiplied with; 1 unless given. */
  readonly alpha?: number;
}

/**
 * out = gate · activation(alpha · a · wᵀ + bias) + residual; out may be the residual. a [rows, k]; w [n, k], or [parts, n, k] with out [parts, rows, n]: one
 * batched product that shares a. bias [n] or [parts, n]. In e4m3 a and w carry their row scales (a one a row, or one for each of its heads), and so
 * does out if it is e4m3 too: they are read, not written (see BoundOptions).
 */
export function gemm(device: Device, out: Tensor, a: Tensor, w: Tensor, options: GemmOptions = {}): void {
  const { rows: m, columns: k } = matrixShape(a);
  const batch = w.shape.length === 3 ? (w.shape[0] ?? 1) : 1;
  const n = w.shape.at(-2) ?? 1;
  if (w.shape.at(-1) !== k || elements(out.shape) !== batch * m * n) {
    throw new RangeError(`gemm: a [${a.shape}], w [${w.shape}] and out [${out.shape}] do not fit together.`);
  }
  const { bias, residual, gate } = options;
  const scalesOfRow = a.rowScale ? elements(a.rowScale.shape) / m : 1;
  if (gate && (gate.dtype !== "fp32" || elements(gate.shape) !== n)) {
    throw new RangeError(`gemm: the gate is ${gate.dtype} [${gate.shape}], but must be fp32 [${n}].`);
  }
  const work = () => {
    const written = dtypeBytes(out.dtype) + (residual ? dtypeBytes(residual.dtype) : 0);
    return {
      flops: 2 * m * n * k * batch,
      bytes: (m * k + batch * n * k) * dtypeBytes(a.dtype) + batch * m * n * written,
      dtype: a.dtype,
      shape: `${m}×${batch === 1 ? n : `${batch}·${n}`}×${k} ${a.dtype}`,
    };
  };
  device.launch("gemm", {
    phase: "gemm",
    work,
    args: () => [
      {
        a: a.address,
        w: w.address,
        bias: addressOf(bias),
        residual: addressOf(residual),
        out: out.address,
        aScale: addressOf(a.rowScale),
        wScale: addressOf(w.rowScale),
        gate: addressOf(gate),
        outScale: addressOf(out.rowScale),
        lda: a.rowStride,
        ldw: w.rowStride,
        ldo: out.rowStride,
        ldResidual: residual?.rowStride ?? 0,
        aStride: 0,
        wStride: n * k,
        biasStride: n,
        outStride: m * n,
        residualStride: m * n,
        m,
        n,
        k,
        batch,
        dtype: deviceDtypes[a.dtype],
        outDtype: deviceDtypes[out.dtype],
        biasDtype: deviceDtypes[bias?.dtype ?? out.dtype],
        residualDtype: deviceDtypes[residual?.dtype ?? out.dtype],
        activation: activations[options.activation ?? "identity"],
        kernel: 0,
        aScaleColumns: scalesOfRow > 1 ? k / scalesOfRow : 0,
        alpha: options.alpha ?? 1,
      },
    ],
  });
}
