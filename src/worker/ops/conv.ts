import { deviceDtypes } from "../runtime/abi.js";
import type { Device } from "../runtime/device.js";
import { addressOf, dtypeBytes, elements, type Tensor } from "../runtime/tensor.js";

// Convolutions over volumes [frames, height, width, channels].

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
  const work = () => {
    const outPixels = elements(outShape) / outChannels;
    const written = elements(outShape) * (options.residual ? 2 : 1);
    return {
      flops: 2 * outPixels * elements(weight.shape),
      bytes: (elements(x.shape) + elements(weight.shape) + written) * dtypeBytes(x.dtype),
      dtype: x.dtype,
      shape: `${outPixels}×${outChannels}×${inChannels}·${kernelT * kernelH * kernelW} ${x.dtype}`,
    };
  };
  device.launch("conv3d", {
    phase: "gemm",
    work,
    args: () => [
      {
        x: x.address,
        history: addressOf(options.history),
        weight: weight.address,
        bias: addressOf(options.bias),
        residual: addressOf(options.residual),
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
    ],
  });
}
