import type { TensorFile } from "../../../../formats/tensor-file.js";
import { DitrunError } from "../../../../protocol/failure.js";
import type { Context } from "../../../context.js";
import { elements, type Tensor, tensor, tensorBytes } from "../../../device/tensor.js";
import { transpose } from "../../../device/video-ops.js";
import type { Init } from "../../../weights/source.js";
import { type WeightSource, wholeOf } from "../../../weights/source.js";

/** What the VAE's layers load themselves from; names are those of the published code (Wan2.1, wan/modules/vae.py). */
export interface VaeLoader {
  readonly context: Context;
  readonly source: WeightSource;
  /** From a name of the published code to the one in the source. */
  nameOf(name: string): string;
}

/** How a checkpoint of the VAE names its tensors, and its width. */
export interface VaeLayout {
  readonly layout: "original" | "diffusers";
  /** Channels at full resolution: 96 for the published model. */
  readonly width: number;
  nameOf(name: string): string;
}

/**
 * Tells the two layouts of a VAE checkpoint apart by the names in it, and reads the width off the decoder's last convolution.
 * @throws DitrunError when the file holds neither.
 */
export function detectVaeLayout(file: TensorFile): VaeLayout {
  for (const [layout, nameOf] of [
    ["original", (name: string) => name],
    ["diffusers", diffusersName],
  ] as const) {
    const last = nameOf("decoder.head.2.weight");
    if (!file.has(last)) continue;
    const width = file.info(last).shape[1];
    if (width !== undefined) return { layout, width, nameOf };
  }
  const below = file.names().find((name) => /\.decoder\.(?:head\.2|conv_out)\.weight$/.test(name));
  if (below !== undefined)
    throw new DitrunError(
      `${file.path} has its tensors below "${below.replace(/decoder\..*$/, "")}": save them without that prefix.`,
    );
  throw new DitrunError(
    `${file.path} is not a Wan 2.1 VAE: it has neither decoder.head.2.weight (Wan2.1_VAE.pth) nor decoder.conv_out.weight (the diffusers layout).`,
  );
}

const inResidual: Record<string, string> = { "0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2" };
const atEnds: Record<string, string> = { conv1: "conv_in", "head.0": "norm_out", "head.2": "conv_out" };
const inMiddle: Record<string, string> = { "0": "resnets.0", "1": "attentions.0", "2": "resnets.1" };
/** Three residual blocks and an upsampler make one of diffusers' up_blocks. */
const UP_BLOCK = 4;

/** The name that diffusers' AutoencoderKLWan gives a tensor of the published code. */
export function diffusersName(name: string): string {
  return name
    .replace(/^conv1\./, "quant_conv.")
    .replace(/^conv2\./, "post_quant_conv.")
    .replace(/^(encoder|decoder)\.(conv1|head\.[02])\./, (_, part, at) => `${part}.${atEnds[at]}.`)
    .replace(/\.middle\.([012])\./, (_, index) => `.mid_block.${inMiddle[index]}.`)
    .replace(/\.downsamples\./, ".down_blocks.")
    .replace(/\.upsamples\.(\d+)\./, (_, digits) => {
      const [block, index] = [Math.floor(Number(digits) / UP_BLOCK), Number(digits) % UP_BLOCK];
      return `.up_blocks.${block}.${index < UP_BLOCK - 1 ? `resnets.${index}` : "upsamplers.0"}.`;
    })
    .replace(/\.residual\.([0236])\./, (_, index) => `.${inResidual[index]}.`)
    .replace(/\.shortcut\./, ".conv_shortcut.");
}

/** A parameter of this shape, seen as the matrix [shape[0], the rest], in dtype; only its first `rows` rows if given. */
export async function loadParameter(
  loader: VaeLoader,
  options: { name: string; shape: readonly number[]; init: Init; dtype: Tensor["dtype"]; rows?: number },
): Promise<Tensor> {
  const { context, source } = loader;
  const { shape, init, dtype } = options;
  const parameter = { name: loader.nameOf(options.name), shape, init };
  const whole = wholeOf(parameter);
  const rows = options.rows ?? shape[0] ?? 1;
  const out = context.device.allocatePersistent(dtype, [rows, whole.columns.count]);
  await source.load(parameter, { rows: [{ start: 0, count: rows }], columns: whole.columns }, out);
  return out;
}

/** torch.nn.Conv3d's initialisation, for random weights: uniform in ±1/√(inputs of one output). */
export const convInit = (shape: readonly number[]): Init => ({
  kind: "uniform",
  bound: elements(shape.slice(1)) ** -0.5,
});

/** A kernel stored [out, in, kt, kh, kw] (or without kt), as [out, kt, kh, kw, in]: the channels of a tap adjacent. */
export async function loadKernel(
  loader: VaeLoader,
  name: string,
  shape: readonly [number, number, number, number, number],
  storedShape: readonly number[],
): Promise<Tensor> {
  const { device, plan } = loader.context;
  const [outChannels, kernelT, kernelH, kernelW, inChannels] = shape;
  const taps = kernelT * kernelH * kernelW;
  const out = device.allocatePersistent(plan.dtype, shape);
  const staging = device.kernels.create("malloc", tensorBytes(plan.dtype, shape), 0);
  try {
    const stored = tensor(staging, plan.dtype, [outChannels, inChannels, taps]);
    const parameter = { name: loader.nameOf(name), shape: storedShape, init: convInit(storedShape) };
    const flat = tensor(staging, plan.dtype, [outChannels, inChannels * taps]);
    await loader.source.load(parameter, wholeOf(parameter), flat);
    transpose(device, out, stored);
    await device.synchronize();
  } finally {
    device.kernels.call("free", staging);
  }
  return out;
}
