import { attentionDtype } from "../../../plan/schema.js";
import type { Context } from "../../comm/context.js";
import { attentionKernels } from "../../runtime/abi.js";
import type { Attention } from "./attention.js";
import { asTheyAre, inE4m3 } from "./payload.js";
import { RingAttention } from "./ring.js";

/** Attention for the context's cp group and the plan's dtypes. */
export function makeAttention({ device, plan, ring }: Context, heads: number): Attention {
  const dtype = attentionDtype(plan);
  return new RingAttention(device, ring.ring(), {
    heads,
    outDtype: plan.dtype,
    kernel: attentionKernels[plan.attention.kernel],
    makePayload: dtype === "e4m3" ? inE4m3({ device, ring }, heads) : asTheyAre,
    queryDtype: dtype,
  });
}
