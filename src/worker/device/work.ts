import { deviceDtypes, type KernelName } from "./abi.js";
import type { AttentionArgs, Conv3dArgs, GemmArgs, PeerSumArgs } from "./abi-arguments.js";
import type { Argument } from "./kernels.js";
import { type DType, dtypeBytes } from "./tensor.js";

/** What one launch has to do, whatever kernel does it. */
export interface Work {
  /** Floating-point operations of products and attention, 2 per multiply-add; what is done to single elements counts nothing. */
  readonly flops: number;
  /** Bytes read and written if every tensor crosses the memory once. */
  readonly bytes: number;
  /** Of a product's or an attention's inputs. */
  readonly dtype?: DType;
  /** For people, to tell launches of one kernel apart. */
  readonly shape: string;
}

/** Of waiting and signalling. */
export const noWork: Work = { flops: 0, bytes: 0, shape: "" };

const dtypes = new Map<number, DType>();
for (const [name, index] of Object.entries(deviceDtypes)) if (isDType(name)) dtypes.set(index, name);

function isDType(name: string): name is DType {
  return name in deviceDtypes;
}

function dtypeOf(index: number): DType {
  const dtype = dtypes.get(index);
  if (dtype === undefined) throw new RangeError(`There is no dtype ${index}.`);
  return dtype;
}

const sizeOf = (index: number) => dtypeBytes(dtypeOf(index));

/** The work of one launch, from its arguments (kernels/include/ditrun.h). Kernels that only wait or signal have none. */
export function workOf(name: KernelName, args: readonly Argument[]): Work {
  const [first] = args;
  if (typeof first === "object" && "k" in first && "aScale" in first) return gemmWork(first);
  if (typeof first === "object" && "shots" in first) return peerSumWork(first);
  if (typeof first === "object" && "neighbours" in first) {
    return streamed(first.rows, first.rowBytes, 4 * first.neighbourCount);
  }
  if (typeof first === "object" && "blocks" in first) return attentionWork(first);
  if (typeof first === "object" && "kernelT" in first) return convolutionWork(first);
  if (typeof first === "object" && "statistics" in first) {
    const { rows, heads, headDim, dtype } = first;
    return streamed(rows, heads * headDim, 2 * (sizeOf(dtype) + 1));
  }
  if (typeof first === "object" && "epsilon" in first) {
    const { rows, columns, xDtype, outDtype } = first;
    const quantized = "quantized" in first && first.quantized !== 0;
    const out = (first.out === 0 ? 0 : sizeOf(outDtype)) + (quantized ? 1 : 0);
    const rope = "rope" in first && first.rope !== 0 ? rows * first.headDim * 4 : 0;
    return streamed(rows, columns, sizeOf(xDtype) + out, rope);
  }
  const at = (index: number): number => {
    const value = args[index];
    if (typeof value === "number") return value;
    throw new TypeError(`Argument ${index} of ${name} is no number.`);
  };
  const countOf = (index: number) => {
    const list = args[index];
    return Array.isArray(list) ? list.length : 0;
  };
  switch (name) {
    case "activate":
      return streamed(1, at(2), 2 * sizeOf(at(3)));
    case "add":
    case "multiply":
      return streamed(1, at(3), 3 * sizeOf(at(4)));
    case "addRows":
      return streamed(at(4), at(5), (at(2) === 0 ? 2 : 3) * sizeOf(at(6)));
    case "addGated":
      return streamed(at(6), at(7), 2 * sizeOf(at(2)) + sizeOf(at(4)));
    case "cast":
      return streamed(1, at(4), sizeOf(at(1)) + sizeOf(at(3)));
    case "quantizeRows":
      return streamed(at(4), at(5), 1 + sizeOf(at(6)));
    case "kvStatistics":
      return streamed(at(6), at(7), 2 * sizeOf(at(8)));
    case "rowSumSquares":
      return streamed(at(3), at(4), sizeOf(at(5)));
    case "combine":
      return streamed(1, at(4), 4 * (countOf(1) + 1));
    case "sum": {
      const result = sizeOf(at(7)) * (at(1) === 0 ? 1 : 2);
      return streamed(at(6) / at(3), at(3), countOf(4) * sizeOf(at(8)) + result);
    }
    case "peerGather": {
      const lengths = args[2];
      const gathered = Array.isArray(lengths) ? lengths.reduce<number>((sum, length) => sum + (length ?? 0), 0) : 0;
      return streamed(1, gathered, 2);
    }
    case "copy":
      return streamed(1, at(2), 2);
    case "copy2d":
      return streamed(at(5), at(4), 2);
    default:
      return noWork;
  }
}

/** One pass over a matrix: so many bytes for each of its elements, and some more. */
function streamed(rows: number, columns: number, bytesOfElement: number, more = 0): Work {
  const shape = rows === 1 ? `${columns}` : `${rows}×${columns}`;
  return { flops: 0, bytes: rows * columns * bytesOfElement + more, shape };
}

function gemmWork({ m, n, k, batch, dtype, outDtype, residual, residualDtype }: GemmArgs): Work {
  const out = sizeOf(outDtype) + (residual === 0 ? 0 : sizeOf(residualDtype));
  const name = dtypeOf(dtype);
  return {
    flops: 2 * m * n * k * batch,
    bytes: (m * k + batch * n * k) * sizeOf(dtype) + batch * m * n * out,
    dtype: name,
    shape: `${m}×${batch === 1 ? n : `${batch}·${n}`}×${k} ${name}`,
  };
}

/** Over two shots each rank's summands are read once by all ranks together, and the sums are written and read again. */
function peerSumWork({ count, columns, ranks, shots, base, dtype, sourceDtype }: PeerSumArgs): Work {
  const summands = shots === 1 ? ranks : 2 + 1 / ranks;
  return streamed(count / columns, columns, summands * sizeOf(sourceDtype) + (base === 0 ? 1 : 2) * sizeOf(dtype));
}

function attentionWork({ queries, heads, headDim, blocks, dtype, oDtype }: AttentionArgs): Work {
  const keys = blocks.reduce((sum, { length }) => sum + length, 0);
  const name = dtypeOf(dtype);
  const width = heads * headDim;
  return {
    flops: 4 * queries * keys * width,
    bytes: width * (queries * (sizeOf(dtype) + sizeOf(oDtype)) + 2 * keys * sizeOf(dtype)),
    dtype: name,
    shape: `${heads}×${queries}×${keys}×${headDim} ${name}`,
  };
}

function convolutionWork(args: Conv3dArgs): Work {
  const { frames, height, width, inChannels, outChannels, kernelT, kernelH, kernelW, upsample, dtype } = args;
  const across = (length: number, kernel: number, before: number, after: number, stride: number) =>
    Math.floor((upsample * length + before + after - kernel) / stride) + 1;
  const outPixels =
    (Math.floor((frames - 1) / args.strideT) + 1) *
    across(height, kernelH, args.padTop, args.padBottom, args.strideH) *
    across(width, kernelW, args.padLeft, args.padRight, args.strideW);
  const taps = kernelT * kernelH * kernelW;
  const out = outPixels * outChannels * (args.residual === 0 ? 1 : 2);
  const name = dtypeOf(dtype);
  return {
    flops: 2 * outPixels * outChannels * inChannels * taps,
    bytes: (frames * height * width * inChannels + taps * inChannels * outChannels + out) * sizeOf(dtype),
    dtype: name,
    shape: `${outPixels}×${outChannels}×${inChannels}·${taps} ${name}`,
  };
}
