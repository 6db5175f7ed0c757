import { attentionDtype } from "../../plan/schema.js";
import type { Context } from "../comm/context.js";
import { NcclGroup } from "../comm/nccl-group.js";
import { PeerGroup } from "../comm/peer-group.js";
import { attention } from "../ops/attention.js";
import { attentionKernels } from "../runtime/abi.js";
import { matrixShape, type Tensor } from "../runtime/tensor.js";
import { asTheyAre, inE4m3, type KeyValuePayload } from "./kv-payload.js";
import { NcclRing } from "./nccl-ring.js";
import { PeerRing } from "./peer-ring.js";
import { type RingAttention, RingOfPayloads, type RingSettings } from "./ring-of-payloads.js";

export type { RingAttention } from "./ring-of-payloads.js";

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
  if (cp instanceof PeerGroup) return new PeerRing(context.heap, context.device, cp, settings);
  if (cp instanceof NcclGroup) return new NcclRing(context.device, cp, settings);
  return new PlainAttention(context.device, settings);
}

class PlainAttention extends RingOfPayloads {
  protected queue(o: Tensor, payload: KeyValuePayload): void {
    const { heads, kernel } = this.settings;
    const block = payload.blockOf(payload.address, matrixShape(payload.q).rows);
    attention(this.device, o, payload.q, [block], { heads, kernel, vScale: payload.vScale });
  }
}
