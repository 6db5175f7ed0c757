import type { Tensor } from "../../runtime/tensor.js";

/**
 * Attention of this rank's queries to the keys and values of every cp rank.
 * q and the result (in the plan's dtype) [tokens, heads · headDim]; kv [2, tokens, heads · headDim], contiguous; tokensOfRank the tokens of each cp rank.
 */
export interface Attention {
  /** What q is turned into: whoever makes q may as well make it so (e4m3: as allocateByHead). kv is made in fp16 with q, but never in e4m3. */
  readonly queryDtype: Tensor["dtype"];
  attend(q: Tensor, kv: Tensor, tokensOfRank: readonly number[], options?: AttendOptions): Tensor;
  /** After a synchronize: milliseconds that attention waited for the block of each ring step, summed over layers; then zero again. */
  takeWaits(): Promise<number[]>;
}

export interface AttendOptions {
  /** The result, in place of a tensor of the plan's dtype. */
  readonly out?: Tensor | undefined;
}
