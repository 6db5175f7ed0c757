import { activations, deviceDtypes } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { addressOf, dtypeBytes, elements, matrixShape, type Tensor } from "../runtime/tensor.js";
import { passOverRows, streamed } from "../runtime/work.js";

// Norms over the last dimension, and the sums that one over several ranks needs.

export interface LayerNormOptions {
  readonly weight?: Tensor | undefined;
  readonly bias?: Tensor | undefined;
  /** float32 [columns] each: y becomes y · (1 + scale) + shift. */
  readonly modulation?: { readonly scale: Tensor; readonly shift: Tensor } | undefined;
  /** Only where out is e4m3. */
  readonly bound?: BoundOptions | undefined;
  readonly epsilon: number;
}

/** What makes the row scales of a product of out known before it: out [rows] (float32) = factor · ‖row‖ + term. */
export interface BoundOptions {
  readonly out: Tensor;
  readonly factor: number;
  readonly term: number;
}

/** out = LayerNorm(x) · weight + bias over the last dimension; out has x's shape and may differ in dtype: e4m3 with row scales. */
export function layerNorm(device: Device, out: Tensor, x: Tensor, options: LayerNormOptions): void {
  const { weight, bias, modulation, bound, epsilon } = options;
  const { rows, columns } = matrixShape(x);
  device.launch("layerNorm", {
    phase: "elementwise",
    work: () => passOverRows(x, out),
    args: () => [
      {
        x: x.address,
        weight: addressOf(weight),
        bias: addressOf(bias),
        out: out.rowScale ? 0 : out.address,
        quantized: out.rowScale ? out.address : 0,
        quantizedScale: addressOf(out.rowScale),
        bound: addressOf(bound?.out),
        modScale: addressOf(modulation?.scale),
        modShift: addressOf(modulation?.shift),
        ldx: x.rowStride,
        ldo: out.rowStride,
        rows,
        columns,
        xDtype: deviceDtypes[x.dtype],
        weightDtype: deviceDtypes[weight?.dtype ?? "fp32"],
        outDtype: deviceDtypes[out.rowScale ? "fp32" : out.dtype],
        epsilon,
        boundFactor: bound?.factor ?? 0,
        boundTerm: bound?.term ?? 0,
      },
    ],
  });
}

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
  device.launch("rmsNorm", {
    phase: "elementwise",
    work: () => streamed(rows, columns, dtypeBytes(x.dtype) + dtypeBytes(out.dtype), rope ? rows * headDim * 4 : 0),
    args: () => [
      {
        x: x.address,
        weight: addressOf(weight),
        out: rowScale ? 0 : out.address,
        quantized: rowScale ? out.address : 0,
        quantizedScale: addressOf(rowScale),
        sumSquares: addressOf(sumSquares?.sums),
        rope: addressOf(rope),
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
    ],
  });
}

/** out [rows] (float32) = Σ x² of each row. */
export function rowSumSquares(device: Device, out: Tensor, x: Tensor): void {
  const { rows, columns } = matrixShape(x);
  device.launch("rowSumSquares", {
    phase: "elementwise",
    work: () => passOverRows(x),
    args: () => [out.address, x.address, x.rowStride, rows, columns, deviceDtypes[x.dtype]],
  });
}

/** Frames [rows, width, channels] of a volume in which others' rows lie around them. */
export interface SpacedFrames {
  readonly first: Tensor;
  readonly count: number;
  /** Elements from one frame's start to the next's. */
  readonly stride: number;
}

/**
 * out = x / max(‖x‖, 10⁻¹²) · √channels · gamma over the channels of every pixel (Wan2.1, wan/modules/vae.py, RMS_norm), then SiLU if
 * asked. x is contiguous; out has its shape, or is as many frames with room between them.
 * @throws RangeError when the shapes do not fit together.
 */
export function channelNorm(
  device: Device,
  out: Tensor | SpacedFrames,
  x: Tensor,
  gamma: Tensor,
  activation: "identity" | "silu",
): void {
  const { rows, columns } = matrixShape(x);
  const { first, count, stride } = "first" in out ? out : { first: out, count: 1, stride: 0 };
  const group = matrixShape(first);
  if (group.rows * count !== rows || group.columns !== columns) {
    throw new RangeError(`channelNorm: x is [${x.shape}], out is ${count} of [${first.shape}].`);
  }
  device.launch("rmsNorm", {
    phase: "elementwise",
    work: () => streamed(rows, columns, dtypeBytes(x.dtype) + dtypeBytes(first.dtype)),
    args: () => [
      {
        x: x.address,
        weight: gamma.address,
        out: first.address,
        quantized: 0,
        quantizedScale: 0,
        sumSquares: 0,
        rope: 0,
        ldx: columns,
        ldo: columns,
        groupStride: stride,
        rows,
        columns,
        fullColumns: columns,
        headDim: 0,
        groupRows: count === 1 ? 0 : group.rows,
        xDtype: deviceDtypes[x.dtype],
        weightDtype: deviceDtypes[gamma.dtype],
        outDtype: deviceDtypes[first.dtype],
        activation: activations[activation],
        // mean(x²) + ε = (‖x‖² + 10⁻²⁴) / channels: keeps a pixel of zeros at zero.
        epsilon: 1e-24 / columns,
      },
    ],
  });
}
