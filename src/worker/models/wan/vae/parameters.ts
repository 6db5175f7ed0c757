import { DitrunError } from "../../../../failure.js";
import type { TensorFile } from "../../../../formats/tensor-file.js";
import type { VaeDtype } from "../../../../plan/schema.js";
import type { Context } from "../../../comm/context.js";
import { transpose } from "../../../ops/copy.js";
import { elements, type Tensor, tensor } from "../../../runtime/tensor.js";
import { type KeptWeights, keepTensor } from "../../../weights/kept.js";
import type { Init } from "../../../weights/source.js";
import { type WeightSource, wholeOf } from "../../../weights/source.js";

/** What the VAE's layers load themselves from; names are those of the published code (Wan2.1, wan/modules/vae.py). */
export interface VaeLoader {
  readonly context: Context;
  readonly source: WeightSource;
  /** Where weights are kept from one instance of the layers to the next. */
  readonly kept?: KeptWeights | undefined;
  /** Of weights, biases and activations; norms keep their gains in float32. */
  readonly dtype: VaeDtype;
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
      "ERR_TENSOR_NAME",
      `${file.path} has its tensors below "${below.replace(/decoder\..*$/, "")}": save them without that prefix.`,
    );
  throw new DitrunError(
    "ERR_CHECKPOINT_UNSUPPORTED",
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

/**
 * What lies between two norms, the residual stream above all, is held in fp16 as this times its value. Norms do not see a scale, and a
 * power of two costs no precision (but for values below 2^-14 / this); so the stream may reach 65504 / this = 1,048,064.
 * Larger factors would not leave it that room, smaller ones would push weights below fp16's smallest normal number.
 */
export const FP16_STREAM_SCALE = 2 ** -4;

/** into: a layer whose input is normed and whose output is not; within: neither; outside: it gives what nothing norms. */
export type StreamSide = "into" | "within" | "outside";

/** What a layer's weight and bias are multiplied by, for its output to have the stream's scale. */
export function streamScales(
  { dtype }: VaeLoader,
  side: StreamSide,
): { readonly weight: number; readonly bias: number } {
  const scale = dtype === "fp16" ? FP16_STREAM_SCALE : 1;
  return { weight: side === "into" ? scale : 1, bias: side === "outside" ? 1 : scale };
}

export interface ParameterOptions {
  readonly name: string;
  readonly shape: readonly number[];
  readonly init: Init;
  readonly dtype: Tensor["dtype"];
  /** Only its first rows. */
  readonly rows?: number;
  /** A power of two that it is multiplied by; 1 unless given. */
  readonly scale?: number;
}

/** A parameter of this shape, seen as the matrix [shape[0], the rest], in dtype. */
export async function loadParameter(loader: VaeLoader, options: ParameterOptions): Promise<Tensor> {
  const { context } = loader;
  const { shape, init, dtype, scale = 1 } = options;
  const parameter = { name: loader.nameOf(options.name), shape, init };
  const whole = wholeOf(parameter);
  const rows = options.rows ?? shape[0] ?? 1;
  return keepTensor(loader, options.name, async () => {
    const out = context.device.allocatePersistent(dtype, [rows, whole.columns.count]);
    const part = { rows: [{ start: 0, count: rows }], columns: whole.columns };
    await loader.source.load(parameter, part, out, { factor: scale });
    return out;
  });
}

/** torch.nn.Conv3d's initialisation, for random weights: uniform in ±1/√(inputs of one output). */
export const convInit = (shape: readonly number[]): Init => ({
  kind: "uniform",
  bound: elements(shape.slice(1)) ** -0.5,
});

/** A kernel stored [out, in, kt, kh, kw] (or without kt), times scale, as [out, kt, kh, kw, in]: the channels of a tap adjacent. */
export async function loadKernel(
  loader: VaeLoader,
  name: string,
  shape: readonly [number, number, number, number, number],
  storedShape: readonly number[],
  scale: number,
): Promise<Tensor> {
  const { context, dtype } = loader;
  const { device } = context;
  const [outChannels, kernelT, kernelH, kernelW, inChannels] = shape;
  const taps = kernelT * kernelH * kernelW;
  return keepTensor(loader, name, async () => {
    const out = device.allocatePersistent(dtype, shape);
    const parameter = { name: loader.nameOf(name), shape: storedShape, init: convInit(storedShape) };
    const flat = await device.stage(dtype, [outChannels, inChannels * taps]);
    await loader.source.load(parameter, wholeOf(parameter), flat, { factor: scale });
    await device.reader.after(() => {
      transpose(device, out, tensor(flat.address, dtype, [outChannels, inChannels, taps]));
      device.unstage(flat);
    });
    return out;
  });
}
