import type { Device } from "../runtime/device.js";
import type { Tensor } from "../runtime/tensor.js";
import type { KeyValuePayload, MakePayload } from "./kv-payload.js";

/**
 * Attention of this rank's queries to the keys and values of every cp rank.
 * q and the result (in the plan's dtype) [tokens, heads · headDim]; kv [2, tokens, heads · headDim], contiguous; tokensOfRank the tokens of each cp rank.
 */
export interface RingAttention {
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

/** What every launch of attention in a ring has in common. */
export interface RingSettings {
  readonly heads: number;
  /** Of the result: the plan's dtype. */
  readonly outDtype: Tensor["dtype"];
  /** One of attentionKernels. */
  readonly kernel: number;
  readonly makePayload: MakePayload;
  /** Of the payload's q. */
  readonly queryDtype: Tensor["dtype"];
}

/** What the rings share: operands become a payload, whose memory and all else of a layer lives until it is queued. */
export abstract class RingOfPayloads implements RingAttention {
  constructor(
    protected readonly device: Device,
    protected readonly settings: RingSettings,
  ) {}

  get queryDtype(): Tensor["dtype"] {
    return this.settings.queryDtype;
  }

  attend(q: Tensor, kv: Tensor, tokensOfRank: readonly number[], { out }: AttendOptions = {}): Tensor {
    const { outDtype, makePayload } = this.settings;
    const o = out ?? this.device.allocate(outDtype, q.shape);
    this.device.arena.scope(() => this.queue(o, makePayload(q, kv, tokensOfRank), tokensOfRank));
    return o;
  }

  /** Queues attention to every rank's payload, and what moves this rank's to the others. */
  protected abstract queue(o: Tensor, payload: KeyValuePayload, tokensOfRank: readonly number[]): void;

  async takeWaits(): Promise<number[]> {
    return [];
  }
}
