import koffi from "koffi";
import { DitrunError, messageOf, PeerFailure } from "../../failure.js";
import { ABI_VERSION, type KernelName, PEER_ERROR, prototypes, structs } from "./abi.js";
import type { Struct } from "./abi-arguments.js";

const NATIVE_STACK_BYTES = 8 * 2 ** 20;

export type Argument = number | number[] | Uint8Array | Struct | [null];
type Native = ((...args: Argument[]) => unknown) & {
  async: (...args: [...Argument[], (error: Error | null, status: number) => void]) => void;
};

export interface DeviceInfo {
  name: string;
  module: "cpu" | "cuda";
  computeCapability: string | null;
  multiprocessors: number;
  clockMHz: number;
  memoryBytes: number;
  freeBytes: number;
  peakTflops: { f32: number | null; bf16: number | null; e4m3: number | null };
  /** Of the device's memory, in 10^9 bytes a second. */
  peakGBs: number | null;
  libraries: Record<string, string | null>;
}

let structsDefined = false;

/** Tells koffi the structs of the C ABI, once a process. */
export function defineStructs(): void {
  if (structsDefined) return;
  structsDefined = true;
  // NCCL and the CUDA driver need far more stack than the 128 KiB that koffi gives calls on other threads.
  koffi.config({ sync_stack_size: NATIVE_STACK_BYTES, async_stack_size: NATIVE_STACK_BYTES, resident_async_pools: 2 });
  for (const [name, definition] of Object.entries(structs)) koffi.struct(name, definition);
}

/**
 * One kernel module (libditrun_cpu.so or libditrun_cuda.so) with every symbol of the C ABI.
 * `call` queues or computes and throws a DitrunError with the module's own sentence when the status is not 0;
 * `callBlocking` does the same on a thread of libuv's pool, for the functions that the header marks BLOCKING.
 */
export class Kernels {
  readonly module: "cpu" | "cuda";
  readonly #functions = new Map<string, Native>();

  /** @throws DitrunError when the file is missing, is no kernel module, or is of another ABI version. */
  constructor(readonly file: string) {
    defineStructs();
    try {
      const library = koffi.load(file);
      for (const [name, prototype] of Object.entries(prototypes)) this.#functions.set(name, library.func(prototype));
    } catch (error) {
      throw new DitrunError(
        "ERR_KERNEL_MODULE",
        `The kernel module ${file} could not be loaded: ${messageOf(error)}. Build it with npm run build, or name another with DITRUN_KERNELS.`,
        { cause: error },
      );
    }
    const version = this.#function("abiVersion")();
    if (version !== ABI_VERSION) {
      throw new DitrunError(
        "ERR_KERNEL_MODULE",
        `The kernel module ${file} has ABI version ${version}, this ditrun needs ${ABI_VERSION}: rebuild it with npm run build.`,
      );
    }
    this.module = this.#function("module")() === "cuda" ? "cuda" : "cpu";
  }

  call(name: KernelName, ...args: Argument[]): void {
    this.#check(name, this.#function(name)(...args));
  }

  /** For functions whose last parameter is an output of one number. */
  create(name: KernelName, ...args: Argument[]): number {
    const out: [null] = [null];
    this.call(name, ...args, out);
    return numberFrom(out);
  }

  callBlocking(name: KernelName, ...args: Argument[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#function(name).async(...args, (error, status) => {
        if (error) return reject(error);
        try {
          this.#check(name, status);
          resolve();
        } catch (failure) {
          reject(failure);
        }
      });
    });
  }

  async createBlocking(name: KernelName, ...args: Argument[]): Promise<number> {
    const out: [null] = [null];
    await this.callBlocking(name, ...args, out);
    return numberFrom(out);
  }

  deviceInfo(): DeviceInfo {
    const json = new Uint8Array(4096);
    this.call("deviceInfo", json, json.length);
    return JSON.parse(new TextDecoder().decode(json.subarray(0, json.indexOf(0))));
  }

  memoryUsed(): { now: number; peak: number } {
    const now: [null] = [null];
    const peak: [null] = [null];
    this.call("memoryUsed", now, peak);
    return { now: numberFrom(now), peak: numberFrom(peak) };
  }

  #function(name: KernelName): Native {
    const native = this.#functions.get(name);
    if (!native) throw new Error(`${name} is not bound.`);
    return native;
  }

  #check(name: KernelName, status: unknown): void {
    if (status === 0) return;
    const why = String(this.#function("lastError")());
    const message = why || `${name} of ${this.file} failed with status ${status}.`;
    // A peer that cannot be reached has most likely failed first: the launcher prefers its own story.
    throw status === PEER_ERROR ? new PeerFailure(message) : new DitrunError("ERR_KERNEL", message);
  }
}

/** What the rest of the worker calls of a kernel module. */
export type KernelCalls = Pick<
  Kernels,
  "module" | "call" | "create" | "callBlocking" | "createBlocking" | "memoryUsed" | "deviceInfo"
>;

/** A kernel module behind which there is nothing: all calls succeed at once, all numbers are 0. */
export function noKernels({ module, deviceInfo }: { module: Kernels["module"]; deviceInfo: DeviceInfo }): KernelCalls {
  return {
    module,
    call() {},
    create: () => 0,
    async callBlocking() {},
    createBlocking: async () => 0,
    memoryUsed: () => ({ now: 0, peak: 0 }),
    deviceInfo: () => deviceInfo,
  };
}

/** Koffi replaces the null of an output cell by the number. */
function numberFrom(cell: readonly (number | bigint | null)[]): number {
  const value = cell[0];
  if (value === null || value === undefined) throw new Error("A kernel function did not fill its output.");
  return Number(value);
}
