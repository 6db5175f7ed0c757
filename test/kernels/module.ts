// The CPU kernel module as these tests see it: every symbol through koffi, and tensors as float64 arrays.
import koffi from "koffi";

export { relativeL2 } from "../compare.js";

import { builtKernels } from "../../src/paths.js";
import { defineStructs, type KernelName, prototypes } from "../../src/worker/runtime/abi.js";

// The test's own view of the module: statuses instead of exceptions, from the very prototypes that workers use.
defineStructs();
const library = koffi.load(builtKernels("cpu"));

export const lastError: () => string = library.func(prototypes.lastError);

/** Throws with the module's sentence unless the status is 0. */
export function check(status: number): void {
  if (status !== 0) throw new Error(`status ${status}: ${lastError()}`);
}

type Call = (...values: unknown[]) => number;
function bindAll(names: readonly KernelName[]): Record<KernelName, Call> {
  const bound: Partial<Record<KernelName, Call>> = {};
  for (const name of names) bound[name] = library.func(prototypes[name]);
  return bound as Record<KernelName, Call>;
}
export const raw = bindAll(Object.keys(prototypes) as KernelName[]);

/** An element that should be there: NaN where it is not, which no expectation accepts. */
export const at = (x: ArrayLike<number>, index: number) => x[index] ?? Number.NaN;

type Fields = Record<string, number | bigint>;

/** Calls that wait, on a thread of their own, so that the test can let go of what they wait for. */
export function streamSynchronizeAsync(stream: number): Promise<number> {
  return new Promise((resolve, reject) => {
    synchronize.async(stream, (error: Error | null, status: number) => (error ? reject(error) : resolve(status)));
  });
}
const synchronize = library.func(prototypes.streamSynchronize);

type Producer = (result: number[]) => number;
/** The value that a function stores through its last pointer. */
export function made(produce: Producer): number {
  const result = [0];
  check(produce(result));
  return Number(result[0]);
}

export const stream = made((result) => raw.streamCreate(0, result));

export const F32 = 0;
export const BF16 = 1;
export const E4M3 = 2;
export const F16 = 3;
export const bytesOf = (dtype: number): number => [4, 2, 1, 2][dtype] ?? Number.NaN;

/** Nearest even to a float with `mantissa` stored bits, smallest exponent `least` (of the smallest normal number). */
function roundTo(x: number, mantissa: number, least: number): number {
  if (x === 0 || !Number.isFinite(x)) return x;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x))), least);
  const step = 2 ** (exponent - mantissa);
  const scaled = x / step;
  const down = Math.floor(scaled);
  const fraction = scaled - down;
  const up = fraction > 0.5 || (fraction === 0.5 && down % 2 !== 0);
  return (up ? down + 1 : down) * step;
}

/** x as stored in dtype, by arithmetic rather than by bits. */
export function rounded(x: number, dtype: number): number {
  if (dtype === F32) return Math.fround(x);
  if (dtype === BF16) return roundTo(x, 7, -126);
  if (dtype === F16) {
    const value = roundTo(x, 10, -14);
    return Math.abs(value) > 65504 ? Math.sign(x) * Number.POSITIVE_INFINITY : value;
  }
  return Math.max(-448, Math.min(448, roundTo(x, 3, -6)));
}

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

function encode(x: number, dtype: number): number {
  if (dtype === F16 && !Number.isFinite(x)) return x > 0 ? 0x7c00 : x < 0 ? 0xfc00 : 0x7e00;
  const value = rounded(x, dtype);
  scratchFloat[0] = value;
  const bits = scratchBits[0] ?? 0;
  if (dtype === BF16) return bits >>> 16;
  const mantissa = dtype === F16 ? 10 : 3;
  const least = dtype === F16 ? -14 : -6;
  const sign = (bits >>> 31) << (dtype === F16 ? 15 : 7);
  const size = Math.abs(value);
  if (size < 2 ** least) return sign | (size * 2 ** (mantissa - least));
  const exponent = Math.floor(Math.log2(size));
  return sign | (((exponent - least + 1) << mantissa) + (size / 2 ** exponent - 1) * 2 ** mantissa);
}

function decode(bits: number, dtype: number): number {
  if (dtype === BF16) {
    scratchBits[0] = bits << 16;
    return scratchFloat[0] ?? Number.NaN;
  }
  const mantissa = dtype === F16 ? 10 : 3;
  const least = dtype === F16 ? -14 : -6;
  const signBit = dtype === F16 ? 0x8000 : 0x80;
  const sign = bits & signBit ? -1 : 1;
  const field = (bits & (signBit - 1)) >> mantissa;
  const fraction = (bits & (2 ** mantissa - 1)) / 2 ** mantissa;
  if (dtype === E4M3 && (bits & 0x7f) === 0x7f) return Number.NaN;
  if (dtype === F16 && field === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (field === 0 ? fraction * 2 ** least : (1 + fraction) * 2 ** (field - 1 + least));
}

const allocated: number[] = [];
export function allocate(bytes: number, memory = 0): number {
  const address = made((result) => raw.malloc(bytes, memory, result));
  allocated.push(address);
  return address;
}
/** Gives back everything that allocate and the functions below made. */
export function freeAll(): void {
  for (const address of allocated.splice(0)) check(raw.free(address));
}

/** Values as a tensor of dtype in device memory; they must be representable (see `rounded`). */
export function upload(values: ArrayLike<number>, dtype: number): number {
  const address = allocate(Math.max(1, values.length) * bytesOf(dtype));
  const array =
    dtype === F32
      ? Float32Array.from(values)
      : dtype === E4M3
        ? Uint8Array.from(values, (x) => encode(x, dtype))
        : Uint16Array.from(values, (x) => encode(x, dtype));
  check(raw.upload(address, array, array.byteLength, stream));
  return address;
}

/** Memory in which every element is NaN: what an operator must not leave behind, and must not read. */
export function poisoned(count: number, dtype: number): number {
  const address = allocate(count * bytesOf(dtype));
  check(raw.upload(address, new Uint8Array(count * bytesOf(dtype)).fill(0xff), count * bytesOf(dtype), stream));
  return address;
}

export function downloadBytes(address: number, bytes: number): Uint8Array {
  const result = new Uint8Array(bytes);
  check(raw.download(result, address, bytes, stream));
  return result;
}

export function download(address: number, count: number, dtype: number): Float64Array {
  const { buffer } = downloadBytes(address, count * bytesOf(dtype));
  if (dtype === F32) return Float64Array.from(new Float32Array(buffer));
  const bits = dtype === E4M3 ? new Uint8Array(buffer) : new Uint16Array(buffer);
  return Float64Array.from(bits, (x) => decode(x, dtype));
}

/** A repeatable sequence of values in [-1, 1), each representable in dtype. */
export function sequence(count: number, dtype: number, seed: number, size = 1): Float64Array {
  let state = (seed * 2654435761 + 1) >>> 0;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return rounded((state / 2 ** 31 - 1) * size, dtype);
  });
}

export function maxDifference(x: ArrayLike<number>, y: ArrayLike<number>): number {
  if (x.length !== y.length) throw new Error(`lengths ${x.length} and ${y.length} differ`);
  let largest = 0;
  for (let index = 0; index < y.length; index++) {
    const difference = Math.abs((x[index] ?? Number.NaN) - (y[index] ?? Number.NaN));
    if (!(difference <= largest)) largest = difference;
  }
  return largest;
}

export function gemm(args: Fields): number {
  const zeros = { bias: 0, residual: 0, aScale: 0, wScale: 0, ldResidual: 0, aStride: 0, wStride: 0, biasStride: 0 };
  const plain = { outStride: 0, residualStride: 0, batch: 1, dtype: F32, outDtype: F32, biasDtype: F32 };
  return raw.gemm(
    {
      ...zeros,
      ...plain,
      gate: 0,
      outScale: 0,
      kernel: 0,
      aScaleColumns: 0,
      residualDtype: F32,
      activation: 0,
      alpha: 1,
      ...args,
    },
    stream,
  );
}
export type GemmArgs = Fields;

export function attention(args: Fields, blocks: Fields[], onStream = stream): number {
  const kv = blocks.map((block) => ({ flag: 0, kScale: 0, reserved: 0, ...block }));
  const scales = { qScale: 0, vScale: 0, oScale: 0, workspace: 0, workspaceBytes: 0 };
  const zeros = { ...scales, lse: 0, previousO: 0, previousLse: 0, relativeBias: 0, waitNanoseconds: 0 };
  const plain = { ...zeros, dtype: F32, oDtype: F32, kernel: 0 };
  return raw.attention({ ...plain, ...args, blocks: kv, blockCount: kv.length }, onStream);
}

export function quantizeKv(args: Fields): number {
  return raw.quantizeKv({ reserved: 0, ...args }, stream);
}

export function layerNorm(args: Fields): number {
  const zeros = { weight: 0, bias: 0, out: 0, quantized: 0, quantizedScale: 0, modScale: 0, modShift: 0, ldo: 0 };
  const plain = { ...zeros, bound: 0, boundFactor: 0, boundTerm: 0, xDtype: F32, weightDtype: F32, outDtype: F32 };
  return raw.layerNorm({ ...plain, epsilon: 1e-5, ...args }, stream);
}

export function rmsNorm(args: Fields): number {
  const places = { out: 0, quantized: 0, quantizedScale: 0, ldo: 0, groupRows: 0, groupStride: 0 };
  const zeros = { ...places, weight: 0, sumSquares: 0, rope: 0, fullColumns: 0, headDim: 0, activation: 0 };
  const plain = { ...zeros, xDtype: F32, weightDtype: F32, outDtype: F32 };
  return raw.rmsNorm({ ...plain, epsilon: 1e-6, ...args }, stream);
}

export function fillRandom(args: Fields): number {
  const plain = { row0: 0, column0: 0, tensorId: 0, distribution: 0, amplitude: 1, offset: 0, outDtype: F32 };
  return raw.fillRandom({ ...plain, reserved: 0, ...args }, stream);
}
