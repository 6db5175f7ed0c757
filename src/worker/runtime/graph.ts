import type { Handle } from "./abi.js";
import type { Device } from "./device.js";

/** Queues a captured graph on the compute stream. */
export function launchGraph(device: Device, graph: Handle): void {
  device.kernels.call("graphLaunch", graph, device.streams.compute);
}

/** Frees a captured graph; the device must have done what is queued of it. */
export function freeGraph(device: Device, graph: Handle): void {
  device.kernels.call("graphDestroy", graph);
}
