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
  const parameter = { name: options.name, shape, init };
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
    const parameter = { name, shape: storedShape, init: convInit(storedShape) };
    const flat = await device.stage(dtype, [outChannels, inChannels * taps]);
    await loader.source.load(parameter, wholeOf(parameter), flat, { factor: scale });
    await device.reader.after(() => {
      transpose(device, out, tensor(flat.address, dtype, [outChannels, inChannels, taps]));
      device.unstage(flat);
    });
    return out;
  });
}
