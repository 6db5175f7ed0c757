import type { Tensor } from "./tensor.js";

/**
 * Is told of activations as they are queued, by the names of the published code's modules: `block.0.self_attn`, `head`.
 * The memory is used again later in the same forward: what a tap wants to keep, it queues a copy of.
 */
export type Tap = (name: string, x: Tensor) => void;

export const noTap: Tap = () => {};
