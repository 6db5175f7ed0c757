import { type Plan, type PlanDocument, planSchema } from "./schema.js";

/** What the end of a plan's name says it computes in. */
const precisions: Readonly<Record<string, PlanDocument>> = {
  bf16: { dtype: "bf16" },
  fp32: { dtype: "fp32" },
  fp16: { attention: { dtype: "fp16" } },
  fp8: { linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } },
};

/** A plan that is written out: what its file would be called, and the plan itself. */
export interface WrittenPlan {
  /** As the shipped plans are named: `cfg2-cp4-fp8`. */
  readonly name: string;
  readonly plan: Plan;
}

/**
 * Reads a plan's mesh and precision out of its name, however they are joined: `cp4×tp2`, `cp4xtp2`, `cp4-tp2`, `cp4tp2`, and
 * `cfg2-cp4-fp8` or `cp2×tp2 bf16` as tables show it. @returns undefined for any other text.
 */
export function writtenPlan(text: string): WrittenPlan | undefined {
  const join = "[-_ ×x*+]?";
  const pattern = new RegExp(`^(single|(?:(?:cfg|cp|tp)\\d{1,4}${join})+?)(?:${join}(bf16|fp32|fp16|fp8|e4m3))?$`, "i");
  const [, axes, ending] = pattern.exec(text) ?? [];
  if (axes === undefined) return undefined;
  const degrees = [...axes.toLowerCase().matchAll(/(cfg|cp|tp)(\d+)/g)].map(([, axis = "", n]) => [axis, Number(n)]);
  const mesh = Object.fromEntries(degrees);
  if (Object.keys(mesh).length < degrees.length) return undefined;
  const precision = ending?.toLowerCase().replace("e4m3", "fp8");
  const parsed = planSchema.safeParse({ mesh, ...(precision === undefined ? {} : precisions[precision]) });
  if (!parsed.success) return undefined;
  const order = (["cfg", "cp", "tp"] as const).filter((axis) => parsed.data.mesh[axis] > 1);
  const parts = order.map((axis) => `${axis}${parsed.data.mesh[axis]}`);
  const ends = precision === undefined || precision === "bf16" ? [] : [precision];
  const name = [...(parts.length === 0 ? ["single"] : parts), ...ends].join("-");
  return { name, plan: { ...parsed.data, name } };
}
