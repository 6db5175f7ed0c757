import koffi from "koffi";
import { type Calls, type OnStream, type Output, structs } from "./abi.generated.js";

// The C ABI as the worker sees it. All that kernels/include/ditrun.h says itself is in the generated file.

export * from "./abi.generated.js";

/** Functions that take a stream and queue no kernel on it: they manage streams and graphs, or wait for the host. */
export const notLaunched = [
  ...(["upload", "download", "streamDestroy", "streamSynchronize"] as const),
  ...(["eventRecord", "captureBegin", "graphLaunch"] as const),
] as const;

/** Functions that queue one kernel or copy on a stream. */
export type LaunchedKernel = Exclude<keyof OnStream, (typeof notLaunched)[number]>;

/** Functions whose last parameter is where they write one number. */
export type CreatingKernel = {
  [Name in keyof Calls]: Calls[Name] extends [...unknown[], Output] ? Name : never;
}[keyof Calls];

const NATIVE_STACK_BYTES = 8 * 2 ** 20;
let structsDefined = false;

/** Tells koffi the structs of the C ABI, once a process. */
export function defineStructs(): void {
  if (structsDefined) return;
  structsDefined = true;
  // NCCL and the CUDA driver need far more stack than the 128 KiB that koffi gives calls on other threads.
  koffi.config({ sync_stack_size: NATIVE_STACK_BYTES, async_stack_size: NATIVE_STACK_BYTES, resident_async_pools: 2 });
  for (const [name, fields] of Object.entries(structs)) koffi.struct(name, fields);
}
