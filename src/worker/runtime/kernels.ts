import koffi from "koffi";
import { DitrunError, messageOf, PeerFailure } from "../../failure.js";
import {
  ABI_VERSION,
  type Calls,
  type CreatingKernel,
  defineStructs,
  type Handle,
  type KernelName,
  type LaunchedKernel,
  type OnStream,
  type Output,
  prototypes,
  statuses,
} from "./abi.js";

/** What functions take, without the output of one number at the end. */
type Inputs<Name extends CreatingKernel> = Calls[Name] extends [...infer Rest, Output] ? Rest : never;
type Native = ((...args: readonly unknown[]) => unknown) & {
  async: (...args: [...unknown[], (error: Error | null, status: number) => void]) => void;
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

  call<Name extends KernelName>(name: Name, ...args: Calls[Name]): void {
    this.#check(name, this.#function(name)(...args));
  }

  /** Queues one kernel on a stream. */
  queue<Name extends LaunchedKernel>(name: Name, args: OnStream[Name], stream: Handle): void {
    this.#check(name, this.#function(name)(...args, stream));
  }

  /** For functions whose last parameter is an output of one number. */
  create<Name extends CreatingKernel>(name: Name, ...args: Inputs<Name>): number {
    const out: Output = [null];
    this.#check(name, this.#function(name)(...args, out));
    return numberFrom(out);
  }

  callBlocking<Name extends KernelName>(name: Name, ...args: Calls[Name]): Promise<void> {
    return this.#onThread(name, args);
  }

  async createBlocking<Name extends CreatingKernel>(name: Name, ...args: Inputs<Name>): Promise<number> {
    const out: Output = [null];
    await this.#onThread(name, [...args, out]);
    return numberFrom(out);
  }

  #onThread(name: KernelName, args: readonly unknown[]): Promise<void> {
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

  deviceInfo(): DeviceInfo {
    const json = new Uint8Array(4096);
    this.call("deviceInfo", json, json.length);
    return JSON.parse(new TextDecoder().decode(json.subarray(0, json.indexOf(0))));
  }

  memoryUsed(): { now: number; peak: number } {
    const now: Output = [null];
    const peak: Output = [null];
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
    throw status === statuses.peerError ? new PeerFailure(message) : new DitrunError("ERR_KERNEL", message);
  }
}

/** How many devices a module sees, and what the first is. @throws DitrunError where it cannot be loaded or opened. */
export function probeModule(file: string): { readonly devices: number; readonly info: DeviceInfo | null } {
  const kernels = new Kernels(file);
  const devices = kernels.create("deviceCount");
  if (devices === 0) return { devices, info: null };
  kernels.call("deviceOpen", 0);
  return { devices, info: kernels.deviceInfo() };
}

/** What the rest of the worker calls of a kernel module. */
export type KernelCalls = Pick<
  Kernels,
  "module" | "call" | "queue" | "create" | "callBlocking" | "createBlocking" | "memoryUsed" | "deviceInfo"
>;

/** A kernel module behind which there is nothing: all calls succeed at once, all numbers are 0. */
export function noKernels({ module, deviceInfo }: { module: Kernels["module"]; deviceInfo: DeviceInfo }): KernelCalls {
  return {
    module,
    call() {},
    queue() {},
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
