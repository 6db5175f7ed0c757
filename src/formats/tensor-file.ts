import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { blockOf, bytesOf, type FileDtype } from "./dtypes.js";
import { refuseStandIns, startBytes } from "./stand-ins.js";

export type { FileDtype } from "./dtypes.js";

/** What stored values of a matrix are to be multiplied with: one number, or one for each of its rows. */
export interface Scale {
  readonly rows: "one" | "each";
  /** [1], or [rows]: shape[0] of the tensor. */
  readonly values: Float32Array;
}

export interface TensorInfo {
  readonly dtype: FileDtype;
  readonly shape: readonly number[];
  /** Bytes of the whole tensor. */
  readonly byteLength: number;
  /** The tensor's values are the stored ones times this, in float32. */
  readonly scale?: Scale | undefined;
  /** [rows]: the sums of squares of a quantised matrix's rows before it was quantised, where its file has them. */
  readonly squares?: Float32Array | undefined;
}

/** Where a tensor's bytes stand, contiguous and as they are: compressed and encrypted files are never opened. */
export interface Place {
  readonly path: string;
  /** The open file's descriptor, until `close`. */
  readonly fd: number;
  readonly offset: number;
  readonly byteLength: number;
}

/** The half-open range [start, end) along dimension `dim` of a tensor; all other dimensions are whole. */
export interface Slice {
  readonly dim: number;
  readonly start: number;
  readonly end: number;
}

/** What a file is, apart from its tensors. */
export interface About {
  readonly format: "safetensors" | "PyTorch" | "GGUF";
  /** What else it says of itself: short texts and numbers by name. */
  readonly metadata: ReadonlyMap<string, string | number>;
}

/** Named tensors in one file or in several that belong together. Nothing is read until `read` asks for it. */
export interface TensorFile {
  /** What messages call it. */
  readonly path: string;
  readonly about: About;
  names(): string[];
  has(name: string): boolean;
  /** Throws DitrunError if there is no such tensor. */
  info(name: string): TensorInfo;
  /** Where the tensor's bytes stand. Throws DitrunError if there is no such tensor. */
  place(name: string): Place;
  /**
   * Reads a tensor, or a slice of it, as contiguous row-major little-endian bytes, without its scale. Slices of a dtype of blocks
   * begin and end with a block. Returns `into`, which must have exactly the right length, or a new array.
   */
  read(name: string, slice?: Slice, into?: Uint8Array): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** A tensor stored row-major and contiguous at a byte offset. */
export interface StoredTensor extends TensorInfo {
  readonly offset: number;
}

/** Runs shorter than this are read together with the gaps between them: one system call then serves many rows. */
const shortRunBytes = 256 * 1024;
const scratchBytes = 4 * 1024 * 1024;
/** The kernel reads at most 2 GiB at once. */
const maxReadBytes = 256 * 1024 * 1024;

/** The largest array of Node 20. */
const mostBufferBytes = 2 ** 32;

export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((count, size) => count * size, 1);
}

/** Bytes of a contiguous tensor. */
export function tensorBytes(dtype: FileDtype, shape: readonly number[]): number {
  return bytesOf(dtype, elementsOf(shape));
}

/** `BF16 [3, 4]`, for messages. */
export function describe(info: Pick<TensorInfo, "dtype" | "shape">): string {
  return `${info.dtype} [${info.shape.join(", ")}]`;
}

/** Throws DitrunError unless tensor `name` has the given shape (and dtype, if given); returns its info. */
export function expectShape(
  file: TensorFile,
  name: string,
  shape: readonly number[],
  dtype?: FileDtype | readonly FileDtype[],
): TensorInfo {
  const info = file.info(name);
  if (info.shape.length !== shape.length || info.shape.some((size, i) => size !== shape[i]))
    throw new DitrunError(
      "ERR_TENSOR_SHAPE",
      `${file.path}: tensor ${name} should have the shape [${shape.join(", ")}], but it has [${info.shape.join(", ")}]; are these the weights of this model?`,
    );
  const dtypes = dtype === undefined ? [info.dtype] : typeof dtype === "string" ? [dtype] : dtype;
  if (!dtypes.includes(info.dtype))
    throw new DitrunError(
      "ERR_TENSOR_DTYPE",
      `${file.path}: tensor ${name} should be ${dtypes.join(" or ")}, but it is ${info.dtype}.`,
    );
  return info;
}

/** One open file in which tensors stand at known offsets: what every format's reader ends in. */
export class StoredTensors implements TensorFile {
  readonly #tensors: ReadonlyMap<string, StoredTensor>;
  readonly #handle: FileHandle;

  constructor(
    readonly path: string,
    readonly about: About,
    handle: FileHandle,
    tensors: ReadonlyMap<string, StoredTensor>,
  ) {
    this.#handle = handle;
    this.#tensors = tensors;
  }

  names(): string[] {
    return [...this.#tensors.keys()];
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  info(name: string): StoredTensor {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined)
      throw new DitrunError(
        "ERR_TENSOR_MISSING",
        `${this.path} has no tensor ${name} among its ${this.#tensors.size}${nearest(name, this.names())}.`,
      );
    return tensor;
  }

  place(name: string): Place {
    const { offset, byteLength } = this.info(name);
    return { path: this.path, fd: this.#handle.fd, offset, byteLength };
  }

  async read(name: string, slice?: Slice, into?: Uint8Array): Promise<Uint8Array> {
    const tensor = this.info(name);
    const { dim, start, end } = slice ?? { dim: 0, start: 0, end: tensor.shape[0] ?? 1 };
    const size = tensor.shape.length === 0 && dim === 0 ? 1 : tensor.shape[dim];
    if (
      size === undefined ||
      !(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= size)
    )
      throw new DitrunError(
        "ERR_TENSOR_SLICE",
        `${this.path}: the slice [${start}, ${end}) of dimension ${dim} is outside of tensor ${name}, ${describe(tensor)}.`,
      );
    const runs = elementsOf(tensor.shape.slice(0, dim));
    const item = elementsOf(tensor.shape.slice(dim + 1));
    const { blockElements } = blockOf(tensor.dtype);
    const edges = runs === 1 ? [start, end] : [start, end, size];
    if (edges.some((edge) => (edge * item) % blockElements !== 0))
      throw new DitrunError(
        "ERR_TENSOR_SLICE",
        `${this.path}: the slice [${start}, ${end}) of dimension ${dim} of tensor ${name}, ${describe(tensor)}, cuts a block of ${blockElements}.`,
      );
    const bytes = (count: number) => bytesOf(tensor.dtype, count * item);
    const run = bytes(end - start);
    if (into === undefined && runs * run > mostBufferBytes)
      throw new DitrunError(
        "ERR_TENSOR_SLICE",
        `${this.path}: tensor ${name} has ${runs * run} bytes, more than can be read at once.`,
      );
    const out = into ?? new Uint8Array(runs * run);
    if (out.byteLength !== runs * run)
      throw new DitrunError(
        "ERR_TENSOR_SLICE",
        `${this.path}: the slice [${start}, ${end}) of dimension ${dim} of tensor ${name} has ${runs * run} bytes, but the buffer given for it has ${out.byteLength}.`,
      );
    const first = tensor.offset + bytes(start);
    await this.#readRuns(name, out, { first, stride: bytes(size), run, runs });
    return out;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  /** Gathers `runs` runs of `run` bytes, `stride` bytes apart from `first` on, one after the other into `out`. */
  async #readRuns(name: string, out: Uint8Array, at: { first: number; stride: number; run: number; runs: number }) {
    const { first, stride, run, runs } = at;
    if (out.byteLength === 0) return;
    if (run === stride || runs === 1) return this.#readBytes(name, out, first);
    if (run >= shortRunBytes) {
      for (let i = 0; i < runs; i++)
        await this.#readBytes(name, out.subarray(i * run, (i + 1) * run), first + i * stride);
      return;
    }
    const group = Math.min(runs, Math.max(1, Math.floor(scratchBytes / stride)));
    const scratch = new Uint8Array((group - 1) * stride + run);
    for (let i = 0; i < runs; i += group) {
      const rows = Math.min(group, runs - i);
      await this.#readBytes(name, scratch.subarray(0, (rows - 1) * stride + run), first + i * stride);
      for (let row = 0; row < rows; row++) out.set(scratch.subarray(row * stride, row * stride + run), (i + row) * run);
    }
  }

  async #readBytes(name: string, into: Uint8Array, offset: number): Promise<void> {
    let done = 0;
    while (done < into.byteLength) {
      const length = Math.min(maxReadBytes, into.byteLength - done);
      const { bytesRead } = await this.#handle.read(into, done, length, offset + done).catch((error: unknown) => {
        throw new DitrunError("ERR_FILE_READ", `Cannot read tensor ${name} of ${this.path}: ${fileFailure(error)}.`);
      });
      if (bytesRead === 0)
        throw new DitrunError(
          "ERR_FILE_READ",
          `${this.path} ended at byte ${offset + done} while tensor ${name} was read: it was cut off or replaced since it was opened.`,
        );
      done += bytesRead;
    }
  }
}

/** Opens a file for reading and says its size; throws DitrunError if that cannot be, or if it is not a regular file. */
export async function openForReading(path: string): Promise<{ handle: FileHandle; size: number }> {
  // Without waiting for a pipe's writer: what is no regular file is refused below.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: unknown) => {
    throw new DitrunError("ERR_FILE_READ", `Cannot open ${path}: ${fileFailure(error)}.`);
  });
  try {
    const stat = await handle.stat();
    if (!stat.isFile())
      throw new DitrunError("ERR_FILE_READ", `Cannot read ${path} as weights: it is not a regular file.`);
    refuseStandIns(path, await startOf(handle), stat.size);
    return { handle, size: stat.size };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function startOf(handle: FileHandle): Promise<string> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(startBytes), 0, startBytes, 0);
  return buffer.toString("latin1", 0, bytesRead);
}

/** Adds what a name should have been, or nothing. */
function nearest(name: string, names: readonly string[]): string {
  const last = name.split(".").slice(-2).join(".");
  const found = names.find((other) => other.endsWith(last));
  return found === undefined ? "" : `; the nearest name is ${found}`;
}
