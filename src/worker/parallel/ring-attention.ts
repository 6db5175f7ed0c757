import { attentionDtype } from "../../protocol/plan.js";
import { NcclGroup } from "../comm/nccl-group.js";
import { PeerGroup } from "../comm/peer-group.js";
import type { Context } from "../context.js";
import { attentionKernels } from "../device/abi.js";
import { attention } from "../device/ops.js";
import type { Tensor } from "../device/tensor.js";
import { matrixShape } from "../device/tensor.js";
import { asTheyAre, inE4m3, type MakePayload } from "./kv-payload.js";
import { NcclRing } from "./nccl-ring.js";
import { PeerRing } from "./peer-ring.js";

/**
 * Attention of this rank's queries to the keys and values of every cp rank.
 * q and the result (in the plan's dtype) [tokens, heads · headDim]; kv [2, tokens, heads · headDim], contiguous; tokensOfRank the tokens of each cp rank.
 */
export interface RingAttention {
  /** What q is turned into: whoever makes q may as well make it so (e4m3: as allocateQueries). kv is made in fp16 with q, but never in e4m3. */
  readonly queryDtype: Tensor["dtype"];
  attend(q: Tensor, kv: Tensor, tokensOfRank: readonly number[]): Tensor;
  /** After a synchronize: milliseconds that attention waited for the block of each ring step, summed over layers; then zero again. */
  takeWaits(): Promise<number[]>;
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

/** The ring for the context's cp group, transport and dtype; at degree 1 it is plain attention. */
export function makeRingAttention(context: Context, heads: number): RingAttention {
  const { cp, plan } = context;
  const dtype = attentionDtype(plan);
  const settings: RingSettings = {
    heads,
    outDtype: plan.dtype,
    kernel: attentionKernels[plan.attention.kernel],
    makePayload: dtype === "e4m3" ? inE4m3(context, heads) : asTheyAre,
    queryDtype: dtype,
  };
  if (cp instanceof PeerGroup) return new PeerRing(context, cp, settings);
  if (cp instanceof NcclGroup) return new NcclRing(context, cp, settings);
  return new PlainAttention(context, settings);
}

class PlainAttention implements RingAttention {
  constructor(
    private readonly context: Context,
    private readonly settings: RingSettings,
  ) {}

  get queryDtype(): Tensor["dtype"] {
    return this.settings.queryDtype;
  }

  attend(q: Tensor, kv: Tensor, tokensOfRank: readonly number[]): Tensor {
    const { device } = this.context;
    const { heads, outDtype, kernel, makePayload } = this.settings;
    const o = device.allocate(outDtype, q.shape);
    device.arena.scope(() => {
      const payload = makePayload(q, kv, tokensOfRank);
      const block = payload.blockOf(payload.address, matrixShape(q).rows);
      attention(device, o, payload.q, [block], { heads, kernel, vScale: payload.vScale });
    });
    return o;
  }

  async takeWaits(): Promise<number[]> {
    return [];
  }
}
