import type { Message, Ring } from "../../comm/ring.js";
import { attention } from "../../ops/attention.js";
import type { Device } from "../../runtime/device.js";
import { matrixShape, type Tensor } from "../../runtime/tensor.js";
import type { AttendOptions, Attention } from "./attention.js";
import type { KeyValuePayload, MakePayload } from "./payload.js";

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

/**
 * Ring attention (arXiv 2310.01889): queries stay, and keys and values go round, one round a layer. Each step of the round is one
 * launch over its blocks in ring order, with one softmax state, which waits inside for those that have flags. Where there are several
 * steps, their partial results merge by log-sum-exp in float32 in the kernel's epilogue. In a ring of one it is plain attention.
 */
export class RingAttention implements Attention {
  /** uint64 for each block of a launch that waits inside. */
  #waits: Tensor | undefined;

  constructor(
    private readonly device: Device,
    private readonly ring: Ring,
    private readonly settings: RingSettings,
  ) {}

  get queryDtype(): Tensor["dtype"] {
    return this.settings.queryDtype;
  }

  attend(q: Tensor, kv: Tensor, tokensOfRank: readonly number[], { out }: AttendOptions = {}): Tensor {
    const { outDtype, makePayload } = this.settings;
    const o = out ?? this.device.allocate(outDtype, q.shape);
    // The payload's memory and all else of a layer lives until it is queued.
    this.device.arena.scope(() => this.#queue(o, makePayload(q, kv, tokensOfRank), tokensOfRank));
    return o;
  }

  #queue(o: Tensor, payload: KeyValuePayload, tokensOfRank: readonly number[]): void {
    const { device, ring } = this;
    const { heads, kernel } = this.settings;
    const { vScale } = payload;
    const bytesOfRank = tokensOfRank.map((tokens) => payload.bytes(tokens));
    const { steps, finish } = ring.start(payload.address, bytesOfRank);
    const partial =
      steps.length === 1
        ? undefined
        : { o: device.allocate("fp32", o.shape), lse: device.allocate("fp32", [heads, matrixShape(o).rows]) };
    steps.forEach(({ messages, hold, reading }, step) => {
      hold();
      const last = step === steps.length - 1;
      const blocks = messages.map(({ rank, address, flag }) => payload.blockOf(address, tokensOfRank[rank] ?? 0, flag));
      const waitNanoseconds = this.#waitsOf(messages)?.address ?? 0;
      const attend = () =>
        attention(device, last ? o : (partial?.o ?? o), payload.q, blocks, {
          ...{ heads, kernel, vScale, waitNanoseconds },
          lse: last ? undefined : partial?.lse,
          previous: step > 0 ? partial : undefined,
        });
      reading(attend);
    });
    finish();
  }

  /** Where a launch over these messages says how long it waited for each; made while measuring. */
  #waitsOf(messages: readonly Message[]): Tensor | undefined {
    if (messages.every(({ flag }) => flag === undefined)) return undefined;
    if (!this.#waits) {
      const { device } = this;
      this.#waits = device.allocatePersistent("i32", [messages.length, 2]);
      device.clear(this.#waits);
    }
    return this.#waits;
  }

  async takeWaits(): Promise<number[]> {
    if (!this.#waits) return [];
    const { device } = this;
    const words = await device.download(this.#waits);
    device.clear(this.#waits);
    return [...new BigUint64Array(words.buffer)].map((nanoseconds) => Number(nanoseconds) / 1e6);
  }
}
