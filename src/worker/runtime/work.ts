import { deviceDtypes, type KernelName, type prototypes } from "./abi.js";
import type {
  AttentionArgs,
  Conv3dArgs,
  GemmArgs,
  LayerNormArgs,
  PeerSumArgs,
  RmsNormArgs,
  Struct,
} from "./abi-arguments.js";
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
  /** Attention that waits inside for the blocks of a ring, and measures how long. */
  readonly waits?: boolean;
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

/** Kernel functions that queue work on a stream, all but those that manage streams and graphs or wait for the host. */
export type LaunchedKernel = Exclude<
  { [Name in KernelName]: (typeof prototypes)[Name] extends `${string}uint64_t stream)` ? Name : never }[KernelName],
  (typeof notLaunched)[number]
>;
export const notLaunched = [
  ...(["upload", "download", "streamDestroy", "streamSynchronize"] as const),
  ...(["eventRecord", "captureBegin", "graphLaunch"] as const),
] as const;

/** The arguments of one launch, seen as what the prototype says that they are. */
class Arguments {
  constructor(private readonly values: readonly Argument[]) {}

  number(index: number): number {
    const value = this.values[index];
    if (typeof value === "number") return value;
    throw new TypeError(`Argument ${index} is no number.`);
  }
  /** Bytes of an element of the dtype that this argument is. */
  size(index: number): number {
    return dtypeBytes(dtypeOf(this.number(index)));
  }
  list(index: number): readonly number[] {
    const list = this.values[index];
    if (Array.isArray(list)) return list.map((value) => value ?? 0);
    throw new TypeError(`Argument ${index} is no list.`);
  }
  total(index: number): number {
    return this.list(index).reduce((sum, value) => sum + value, 0);
  }
  get struct(): Struct {
    const [first] = this.values;
    if (typeof first === "object" && !Array.isArray(first) && !(first instanceof Uint8Array)) return first;
    throw new TypeError("The first argument is no struct.");
  }
}

function wrongStruct(): never {
  throw new TypeError("The first argument is another function's struct.");
}

/** What each launch costs, from its arguments as kernels/include/ditrun.h has them. Small vectors, such as a bias, count nothing. */
const costs: Record<LaunchedKernel, (args: Arguments) => Work> = {
  flagsWrite: () => noWork,
  flagsWait: () => noWork,
  copy: (a) => streamed(1, a.number(2), 2),
  copy2d: (a) => streamed(a.number(5), a.number(4), 2),
  fillZero: (a) => streamed(1, a.number(1), 1),

  gemm: ({ struct }) => ("aScaleColumns" in struct ? gemmWork(struct) : wrongStruct()),
  attention: ({ struct }) => ("blockCount" in struct ? attentionWork(struct) : wrongStruct()),
  conv3d: ({ struct }) => ("kernelT" in struct ? convolutionWork(struct) : wrongStruct()),
  kvStatistics: (a) => streamed(a.number(6), a.number(7), 2 * a.size(8)),
  quantizeKv: ({ struct }) => {
    if (!("statistics" in struct)) return wrongStruct();
    const { rows, heads, headDim, dtype } = struct;
    return streamed(rows, heads * headDim, 2 * (sizeOf(dtype) + 1));
  },
  layerNorm: ({ struct }) => ("modScale" in struct ? normWork(struct, 0) : wrongStruct()),
  rmsNorm: ({ struct }) => {
    if (!("rope" in struct)) return wrongStruct();
    return normWork(struct, struct.rope === 0 ? 0 : struct.rows * struct.headDim * 4);
  },
  softmaxRows: (a) => streamed(a.number(4), a.number(5), a.size(1) + a.size(3)),

  activate: (a) => streamed(1, a.number(2), 2 * a.size(3)),
  add: (a) => streamed(1, a.number(3), 3 * a.size(4)),
  multiply: (a) => streamed(1, a.number(3), 3 * a.size(4)),
  addRows: (a) => streamed(a.number(4), a.number(5), (a.number(2) === 0 ? 2 : 3) * a.size(6)),
  addGated: (a) => streamed(a.number(6), a.number(7), 2 * a.size(2) + a.size(4)),
  cast: (a) => streamed(1, a.number(4), a.size(1) + a.size(3)),
  combine: (a) => streamed(1, a.number(4), 4 * (a.list(1).length + 1)),
  quantizeRows: (a) => streamed(a.number(4), a.number(5), 1 + a.size(6)),
  rowSumSquares: (a) => streamed(a.number(3), a.number(4), a.size(5)),
  countNonfinite: (a) => streamed(1, a.number(2), a.size(3)),
  transpose: (a) => streamed(a.number(2) * a.number(3), a.number(4), 2 * a.size(5)),
  toBytes: (a) => streamed(1, a.number(4), a.size(3) + 1),
  fillRandom: ({ struct }) => {
    if (!("tensorId" in struct)) return wrongStruct();
    return streamed(struct.rows, struct.columns, sizeOf(struct.outDtype));
  },

  gatherRows: (a) => streamed(a.number(6), a.number(7), a.size(1) + a.size(3)),
  patchify: (a) => patchesWork(a, { channels: 4, patch: 7, tokens: 9 }),
  unpatchify: (a) => patchesWork(a, { channels: 4, patch: 7, tokens: 9 }),
  patchifyVideo: (a) => patchesWork(a, { channels: 4, patch: 8, tokens: 10 }),
  unpatchifyVideo: (a) => patchesWork(a, { channels: 4, patch: 8, tokens: 10 }),
  sincosEmbedding: (a) => streamed(a.number(3), a.number(6), a.size(1)),
  sincos2d: (a) => streamed(a.number(4), a.number(7), a.size(1)),
  rope3d: (a) => streamed(a.number(4), a.number(5), 4),

  sum: (a) => {
    const result = a.size(7) * (a.number(1) === 0 ? 1 : 2);
    return streamed(a.number(6) / a.number(3), a.number(3), a.list(4).length * a.size(8) + result);
  },
  peerSum: ({ struct }) => ("shots" in struct ? peerSumWork(struct) : wrongStruct()),
  peerGather: (a) => streamed(1, a.total(2), 2),
  peerExchange: ({ struct }) => {
    if (!("neighbours" in struct)) return wrongStruct();
    return streamed(struct.rows, struct.rowBytes, 4 * struct.neighbourCount);
  },
  ncclAllReduce: (a) => streamed(1, a.number(3), 2 * a.size(4)),
  ncclAllGather: () => {
    throw new Error("What ncclAllGather gathers depends on its group: whoever launches it says its work.");
  },
  ncclExchange: (a) => streamed(1, a.total(2) + a.total(6), 1),
};

/** The work of one launch, from its arguments. Kernels that only wait or signal have none. */
export function workOf(name: LaunchedKernel, args: readonly Argument[]): Work {
  return costs[name](new Arguments(args));
}

/** A gather of so many bytes: each rank's part is read by some rank and written here. */
export function gatherWork(bytes: number): Work {
  return streamed(1, bytes, 2);
}

function patchesWork(a: Arguments, at: { channels: number; patch: number; tokens: number }): Work {
  return streamed(a.number(at.tokens), a.number(at.channels) * a.number(at.patch) ** 2, a.size(1) + a.size(3));
}

function normWork(
  { rows, columns, xDtype, outDtype, out, quantized }: LayerNormArgs | RmsNormArgs,
  more: number,
): Work {
  const written = (out === 0 ? 0 : sizeOf(outDtype)) + (quantized === 0 ? 0 : 1);
  return streamed(rows, columns, sizeOf(xDtype) + written, more);
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

function attentionWork({ queries, heads, headDim, blocks, dtype, oDtype, waitNanoseconds }: AttentionArgs): Work {
  const keys = blocks.reduce((sum, { length }) => sum + length, 0);
  const name = dtypeOf(dtype);
  const width = heads * headDim;
  return {
    flops: 4 * queries * keys * width,
    bytes: width * (queries * (sizeOf(dtype) + sizeOf(oDtype)) + 2 * keys * sizeOf(dtype)),
    dtype: name,
    shape: `${heads}×${queries}×${keys}×${headDim} ${name}`,
    ...(waitNanoseconds === 0 ? {} : { waits: true }),
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
