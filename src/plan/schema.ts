import { z } from "zod";
import { DitrunError } from "../failure.js";
import { mostWorkers } from "../limits.js";

/** How the weight of one linear layer is divided over the tensor-parallel group. */
export const splitSchema = z.enum(["heads", "column", "row", "replicated"]);
export type Split = z.infer<typeof splitSchema>;

export const dtypeSchema = z.enum(["fp32", "bf16"]);
export type ComputeDtype = z.infer<typeof dtypeSchema>;
/** A dtype that may also be fp8: e4m3 with dynamic scales. */
export const lowDtypeSchema = z.enum(["fp32", "bf16", "e4m3"]);
export type LowDtype = z.infer<typeof lowDtypeSchema>;
/** What attention's operands may be: fp16 has the bytes of bf16, three bits more precision and a range of 65504. */
export const attentionDtypeSchema = z.enum(["fp32", "bf16", "fp16", "e4m3"]);
export type AttentionDtype = z.infer<typeof attentionDtypeSchema>;

/** What Wan's VAE may compute in: fp16 has the bytes of bf16, three bits more precision and a range of 65504. */
export const vaeDtypeSchema = z.enum(["fp32", "bf16", "fp16"]);
export type VaeDtype = z.infer<typeof vaeDtypeSchema>;

const degree = z.int().min(1).max(mostWorkers);

export const meshSchema = z
  .strictObject({ cfg: degree.default(1), cp: degree.default(1), tp: degree.default(1) })
  .prefault({});

/** One rule: every module whose path matches the pattern (`*` stands for one path segment) is split so. */
export const layerRuleSchema = z.strictObject({ path: z.string().min(1), split: splitSchema });
export type LayerRule = z.infer<typeof layerRuleSchema>;

/** What people call something: printed as it is, so nothing that would steer a terminal or begin a line. */
export const nameSchema = z
  .string()
  .min(1)
  .regex(/^\P{Cc}+$/u);

/**
 * A parallelism plan: the mesh, and how each part of a model uses it. `configs/plans/*.yaml` hold such documents.
 * Mesh order: tp fastest, then cp, then cfg: rank = (cfgRank · cp + cpRank) · tp + tpRank.
 */
export const planSchema = z.strictObject({
  name: nameSchema.optional(),
  mesh: meshSchema,
  /** Weights and activations; accumulation is always float32. */
  dtype: dtypeSchema.default("bf16"),
  attention: z
    .strictObject({
      kernel: z.enum(["auto", "generic", "sm80", "sm90"]).default("auto"),
      /** Of self-attention's queries, keys and values: the plan's dtype, e4m3, or fp16 (the DiT in bf16). Attention to a text keeps the plan's dtype. */
      dtype: attentionDtypeSchema.optional(),
    })
    .prefault({}),
  ring: z
    .strictObject({
      /** What keys and values travel as: the attention's dtype, which is the default. */
      dtype: attentionDtypeSchema.optional(),
      /** peer: copies within one host (CUDA IPC, shared memory); nccl: any hosts (between CPUs, TCP); auto: for each axis peer where it reaches. */
      transport: z.enum(["auto", "peer", "nccl"]).default("auto"),
    })
    .prefault({}),
  linear: z.strictObject({ dtype: lowDtypeSchema.optional() }).prefault({}),
  /** Of Wan's VAE, weights and activations: by default fp16 in a plan of bf16, else fp32. */
  vae: z.strictObject({ dtype: vaeDtypeSchema.optional() }).prefault({}),
  /** Patch, time and label embeddings and the head split over tp (else each rank computes them whole). */
  embeddings: z.strictObject({ tensorParallel: z.boolean().default(false) }).prefault({}),
  /** Norms on a token shard per tp rank: reduce-scatter and all-gather instead of all-reduce (arXiv 2205.05198). */
  norms: z.strictObject({ sequenceParallel: z.boolean().default(false) }).prefault({}),
  /**
   * Both texts' forwards of a worker that is alone at the same time, on two streams: one fills what the other leaves idle, and
   * activations take twice the memory. By default where the tokens are few.
   */
  guidance: z.strictObject({ together: z.boolean().optional() }).prefault({}),
  /** Capture a forward once and replay it as one graph. */
  graph: z.boolean().default(true),
  /** Later rules win over earlier ones and over the model's own defaults. */
  layers: z.array(layerRuleSchema).default([]),
});
export type PlanDocument = z.input<typeof planSchema>;
export type Plan = z.output<typeof planSchema>;

/** Workers that a plan occupies: cfg · cp · tp. */
export function meshSize(mesh: Plan["mesh"]): number {
  return mesh.cfg * mesh.cp * mesh.tp;
}

/** A short name for tables: `cp4×tp2`, with `cfg2×` in front if it is used; `single` for one worker. */
export function meshName(mesh: Plan["mesh"]): string {
  const parts = (["cfg", "cp", "tp"] as const).filter((axis) => mesh[axis] > 1);
  return parts.length === 0 ? "single" : parts.map((axis) => `${axis}${mesh[axis]}`).join("×");
}

/** What self-attention multiplies in. */
export function attentionDtype(plan: Plan): AttentionDtype {
  return plan.attention.dtype ?? plan.dtype;
}

/** What keys and values travel as. */
export function ringDtype(plan: Plan): AttentionDtype {
  return plan.ring.dtype ?? attentionDtype(plan);
}

/** What Wan's VAE computes in: beside bf16, fp16 takes 1.05 times the time and is three bits more exact. */
export function vaeDtype(plan: Plan): VaeDtype {
  return plan.vae.dtype ?? (plan.dtype === "bf16" ? "fp16" : "fp32");
}

/** Refuses dtypes that do not go together. @throws DitrunError with both, and what would. */
export function checkDtypes(plan: Plan): void {
  const attention = attentionDtype(plan);
  const ring = ringDtype(plan);
  const name = plan.name === undefined ? "The plan" : `Plan ${plan.name}`;
  const others = plan.dtype === "bf16" ? ["fp16", "e4m3"] : ["e4m3"];
  if (attention !== plan.dtype && !others.includes(attention)) {
    throw new DitrunError(
      "ERR_PLAN_PRECISION",
      `${name} has attention.dtype ${attention} and dtype ${plan.dtype}: leave attention.dtype out, or make it ${others.join(" or ")}.`,
    );
  }
  if (ring !== attention) {
    const other = others.includes(ring) || ring === plan.dtype ? `, or make attention.dtype ${ring} too` : "";
    throw new DitrunError(
      "ERR_PLAN_PRECISION",
      `${name} has ring.dtype ${ring} and attention.dtype ${attention}, but keys and values travel as attention reads them: leave ring.dtype out${other}.`,
    );
  }
  if ((attention === "fp16" || attention === "e4m3") && plan.attention.kernel === "sm80") {
    throw new DitrunError(
      "ERR_PLAN_PRECISION",
      `${name} has attention.dtype ${attention}, which the attention.kernel sm80 does not have: choose auto, generic or sm90.`,
    );
  }
}
