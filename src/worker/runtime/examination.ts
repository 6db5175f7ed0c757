import { readFileSync } from "node:fs";
import { activations, deviceDtypes, distributions, type GemmArgs, HANDLE_BYTES, memoryKinds } from "./abi.js";
import { type DeviceInfo, Kernels } from "./kernels.js";

/** Values that a trial computes, and the edge of the matrices that it multiplies. */
const TRIED = 256;
const TRIED_EDGE = 64;
const FLOAT_BYTES = 4;
const BF16_BYTES = 2;
/** 1 in bf16, and the sum of TRIED_EDGE products of it. */
const ONE = 0x3f80;
const EDGE_SUM = 0x4280;
/** What is measured: the edge of matrices, bytes of a copy, and milliseconds that a measurement takes at least. */
const measured = {
  cuda: { edge: 8192, dtype: "bf16", bytes: 2 ** 30, milliseconds: 400 },
  cpu: { edge: 512, dtype: "fp32", bytes: 2 ** 26, milliseconds: 150 },
} as const;

/** What one device computes and copies. */
export interface Rates {
  readonly edge: number;
  readonly dtype: "bf16" | "fp32";
  /** 10^12 operations a second of a product of square matrices, of random numbers: zeros would cost less power. */
  readonly gemmTflops: number;
  /** 10^9 bytes a second that a copy within the device's memory reads and writes. */
  readonly copyGBs: number;
}

/**
 * One device as `ditrun doctor` tries it. It works in a process of its own, which a broken module or driver may end.
 * All methods throw DitrunErrors with the module's own sentence, or an Error that says what is wrong with a result.
 */
export class Examination {
  readonly #kernels: Kernels;
  readonly #stream: number;
  readonly #places: number[] = [];
  readonly devices: number;
  readonly info: DeviceInfo | null;

  constructor(file: string, index: number) {
    this.#kernels = new Kernels(file);
    this.devices = this.#kernels.create("deviceCount");
    if (this.devices > 0) this.#kernels.call("deviceOpen", index);
    this.info = this.devices > 0 ? this.#kernels.deviceInfo() : null;
    this.#stream = this.devices > 0 ? this.#kernels.create("streamCreate", 0) : 0;
  }

  /** Libraries of NVIDIA's that this process has opened, by the paths that the kernel maps. */
  libraries(): string[] {
    const maps = readFileSync("/proc/self/maps", "utf8");
    return [...new Set(maps.match(/\/\S*\/lib(?:nccl|cublasLt|cuda)\.so[^\s/]*/g) ?? [])];
  }

  /** Runs one of the module's own kernels: a GPU that it has no code for says so only now. */
  sum(): void {
    const source = this.#filled(TRIED, 2);
    this.#expect(this.#sumOf([source, source], TRIED), 4, "a sum");
    this.#freeAll();
  }

  /** Multiplies small matrices of ones; on a GPU by cuBLASLt. */
  product(): void {
    const count = TRIED_EDGE ** 2;
    const ones = new Uint16Array(count).fill(ONE);
    const [a, w, out] = [0, 1, 2].map(() => this.#allocate(count * BF16_BYTES));
    if (a === undefined || w === undefined || out === undefined) return;
    for (const place of [a, w]) this.#kernels.call("upload", place, bytesOf(ones), ones.byteLength, this.#stream);
    this.#multiply(a, w, out, TRIED_EDGE, "bf16", this.info?.module === "cuda" ? 1 : 0);
    const result = new Uint16Array(count);
    this.#kernels.call("download", bytesOf(result), out, result.byteLength, this.#stream);
    const wrong = result.find((value) => value !== EDGE_SUM);
    if (wrong !== undefined) throw new Error(`a product of ones has the bits ${wrong} instead of ${EDGE_SUM}.`);
    this.#freeAll();
  }

  /** Memory full of a number, for other processes. @returns its handle. */
  lend(bytes: number, value: number): string {
    const place = this.#kernels.create("malloc", bytes, memoryKinds.peer);
    const values = new Float32Array(bytes / FLOAT_BYTES).fill(value);
    this.#kernels.call("upload", place, bytesOf(values), bytes, this.#stream);
    const handle = new Uint8Array(HANDLE_BYTES);
    this.#kernels.call("peerExport", place, handle);
    return Buffer.from(handle).toString("base64");
  }

  /**
   * Has a kernel read the ends of what another process lends, which holds `value` everywhere.
   * @returns 10^9 bytes a second of copying it here, where that is to be measured, else null.
   */
  borrow(handle: string, bytes: number, value: number, timed: boolean): number | null {
    const place = this.#kernels.create("peerOpen", Buffer.from(handle, "base64"));
    try {
      for (const start of [0, bytes - TRIED * FLOAT_BYTES]) {
        this.#expect(this.#sumOf([place + start], TRIED), value, "what came from the other's memory");
      }
      if (!timed) return null;
      const here = this.#allocate(bytes);
      return (bytes * this.#repeat(() => this.#copy(here, place, bytes), "cpu")) / 1e9;
    } finally {
      this.#freeAll();
      this.#kernels.call("peerClose", place);
    }
  }

  rates(): Rates {
    const module = this.info?.module ?? "cpu";
    const { edge, dtype, bytes } = measured[module];
    const matrix = edge ** 2 * (dtype === "bf16" ? BF16_BYTES : FLOAT_BYTES);
    const [a, w, out] = [this.#allocate(matrix), this.#allocate(matrix), this.#allocate(matrix)];
    for (const place of [a, w]) this.#randomise(place, edge, dtype);
    const products = this.#repeat(() => this.#multiply(a, w, out, edge, dtype, 0), module);
    this.#freeAll();
    const [from, to] = [this.#allocate(bytes), this.#allocate(bytes)];
    this.#kernels.queue("fillZero", [from, bytes], this.#stream);
    const copies = this.#repeat(() => this.#copy(to, from, bytes), module);
    this.#freeAll();
    return { edge, dtype, gemmTflops: (2 * edge ** 3 * products) / 1e12, copyGBs: (2 * bytes * copies) / 1e9 };
  }

  close(): void {
    if (this.devices > 0) this.#kernels.call("streamDestroy", this.#stream);
  }

  /** Times a second that the work is done, after once to warm up. */
  #repeat(work: () => void, module: keyof typeof measured): number {
    const wait = () => this.#kernels.call("streamSynchronize", this.#stream);
    work();
    wait();
    const begun = performance.now();
    const least = measured[module].milliseconds;
    let times = 0;
    let elapsed = 0;
    while (elapsed < least) {
      for (let index = 0; index < 4; index++) work();
      wait();
      times += 4;
      elapsed = performance.now() - begun;
    }
    return (times * 1e3) / elapsed;
  }

  #copy(to: number, from: number, bytes: number): void {
    this.#kernels.queue("copy", [to, from, bytes], this.#stream);
  }

  #multiply(a: number, w: number, out: number, edge: number, dtype: "bf16" | "fp32", kernel: number): void {
    const code = deviceDtypes[dtype];
    const args: GemmArgs = {
      ...{ a, w, out, bias: 0, residual: 0, aScale: 0, wScale: 0, gate: 0, outScale: 0 },
      ...{ lda: edge, ldw: edge, ldo: edge, ldResidual: 0, m: edge, n: edge, k: edge, batch: 1, alpha: 1 },
      ...{ aStride: 0, wStride: 0, biasStride: 0, outStride: 0, residualStride: 0 },
      ...{ dtype: code, outDtype: code, biasDtype: code, residualDtype: code },
      ...{ activation: activations.identity, kernel, aScaleColumns: 0 },
    };
    this.#kernels.queue("gemm", [args], this.#stream);
  }

  #randomise(out: number, edge: number, dtype: "bf16" | "fp32"): void {
    const args = {
      ...{
        out,
        seed: 0n,
        row0: 0,
        column0: 0,
        fullColumns: edge,
        ldo: edge,
        rows: edge,
        columns: edge,
        tensorId: out % 97,
      },
      ...{ distribution: distributions.normal, amplitude: 1, offset: 0, outDtype: deviceDtypes[dtype], reserved: 0 },
    };
    this.#kernels.queue("fillRandom", [args], this.#stream);
  }

  #sumOf(sources: readonly number[], count: number): Float32Array {
    const out = this.#allocate(count * FLOAT_BYTES);
    const { fp32 } = deviceDtypes;
    this.#kernels.queue("sum", [out, 0, 0, count, sources, sources.length, count, fp32, fp32], this.#stream);
    const result = new Float32Array(count);
    this.#kernels.call("download", bytesOf(result), out, result.byteLength, this.#stream);
    return result;
  }

  #filled(count: number, value: number): number {
    const place = this.#allocate(count * FLOAT_BYTES);
    const values = new Float32Array(count).fill(value);
    this.#kernels.call("upload", place, bytesOf(values), values.byteLength, this.#stream);
    return place;
  }

  #expect(values: Float32Array, value: number, what: string): void {
    const wrong = values.find((each) => each !== value);
    if (wrong !== undefined) throw new Error(`${what} is ${wrong} instead of ${value}.`);
  }

  #allocate(bytes: number): number {
    const place = this.#kernels.create("malloc", bytes, memoryKinds.device);
    this.#places.push(place);
    return place;
  }

  #freeAll(): void {
    for (const place of this.#places.splice(0)) this.#kernels.call("free", place);
  }
}

function bytesOf(values: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
