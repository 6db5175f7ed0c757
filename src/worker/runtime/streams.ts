import type { Handle } from "./abi.js";
import type { KernelCalls } from "./kernels.js";

/** The queues of a device. */
export type StreamName = "compute" | "copy" | "aside";

/** An event that a stream completes when it comes there. Whoever takes it destroys it. */
export function timestamp(kernels: KernelCalls, stream: Handle): Handle {
  const event = kernels.create("eventCreate");
  kernels.call("eventRecord", event, stream);
  return event;
}
