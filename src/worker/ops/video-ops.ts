import { activations, deviceDtypes } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { elements, matrixShape, type Tensor } from "../runtime/tensor.js";

// Operators of Wan's VAE, on volumes [frames, height, width, channels]. One launch each, on the compute stream.

export interface Conv3dOptions {
  readonly bias?: Tensor | undefined;
  /** Like out; may be out itself. */
  readonly residual?: Tensor | undefined;
  /** [kernelT - 1, height, width, inChannels]: the frames before x; zeros if absent. */
  readonly history?: Tensor | undefined;
  /** Of time, height and width. */
  readonly stride: readonly [number, number, number];
  /** Zeros above, below, left and right; negative leaves rows or columns out. */
  readonly pad: readonly [number, number, number, number];
  readonly upsample: 1 | 2;
}

/**
 * out = conv(x) + bias + residual, causal in time. x [frames, height, width, inChannels];
 * weight [outChannels, kernelT, kernelH, kernelW, inChannels]; float32 sums, rounded once.
 * @throws RangeError when the shapes do not fit together.
 */
export function conv3d(device: Device, out: Tensor, x: Tensor, weight: Tensor, options: Conv3dOptions): void {
  const [frames = 0, height = 0, width = 0, inChannels = 0] = x.shape;
  const [outChannels = 0, kernelT = 0, kernelH = 0, kernelW = 0, weightChannels = 0] = weight.shape;
  const { stride, pad, upsample } = options;
  const outShape = [
    Math.floor((frames - 1) / stride[0]) + 1,
    Math.floor((upsample * height + pad[0] + pad[1] - kernelH) / stride[1]) + 1,
    Math.floor((upsample * width + pad[2] + pad[3] - kernelW) / stride[2]) + 1,
    outChannels,
  ];
  if (inChannels !== weightChannels || outShape.some((size, index) => size !== out.shape[index])) {
    throw new RangeError(
      `conv3d: x [${x.shape}] and weight [${weight.shape}] give [${outShape}], out is [${out.shape}].`,
    );
  }
  device.launch("gemm", "conv3d", () => [
    {
      x: x.address,
      history: options.history?.address ?? 0,
      weight: weight.address,
      bias: options.bias?.address ?? 0,
      residual: options.residual?.address ?? 0,
      out: out.address,
      frames,
      height,
      width,
      inChannels,
      outChannels,
      kernelT,
      kernelH,
      kernelW,
      strideT: stride[0],
      strideH: stride[1],
      strideW: stride[2],
      padTop: pad[0],
      padBottom: pad[1],
      padLeft: pad[2],
      padRight: pad[3],
      upsample,
      dtype: deviceDtypes[x.dtype],
      kernel: 0,
    },
  ]);
}

/** out [batch, columns, rows] = the transpose of each matrix of x [batch, rows, columns]; contiguous. */
export function transpose(device: Device, out: Tensor, x: Tensor): void {
  const [rows = 1, columns = 1] = x.shape.slice(-2);
  const batch = elements(x.shape) / rows / columns;
  device.launch("elementwise", "transpose", () => [
    out.address,
    x.address,
    batch,
    rows,
    columns,
    deviceDtypes[x.dtype],
  ]);
}

/** out = softmax(scale · row) of each row of x [rows, columns]; out may be x. */
export function softmaxRows(device: Device, out: Tensor, x: Tensor, scale: number): void {
  const { rows, columns } = matrixShape(x);
  device.launch("attention", "softmaxRows", () => [
    out.address,
    deviceDtypes[out.dtype],
    x.address,
    deviceDtypes[x.dtype],
    rows,
    columns,
    scale,
  ]);
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
  device.launch("elementwise", "rmsNorm", () => [
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
  ]);
}

/**
 * out (u8) = pixels of 8 bits: x (fp32 or bf16) from [-1, 1] to 0 … 255, clamped, rounded to nearest even.
 * @param nonfinite i32: becomes 1 where a pixel is NaN or infinite, else it stays.
 */
export function toBytes(device: Device, out: Tensor, x: Tensor, nonfinite: Tensor): void {
  device.launch("elementwise", "toBytes", () => [
    out.address,
    nonfinite.address,
    x.address,
    deviceDtypes[x.dtype],
    elements(x.shape),
  ]);
}
