import { attentionDtype, meshName, type Plan, ringDtype } from "./schema.js";

/** The plan's coarsest arithmetic: e4m3 if any part uses it, else bf16 if any part does, else fp32. */
export function planPrecision(plan: Plan): "fp32" | "bf16" | "e4m3" {
  const dtypes = [plan.dtype, plan.attention.dtype, plan.ring.dtype, plan.linear.dtype];
  if (dtypes.includes("e4m3")) return "e4m3";
  return dtypes.includes("bf16") ? "bf16" : "fp32";
}

/** The plan's dtype, and which parts are in another: `bf16, e4m3 linear, fp16 attention + ring`. */
export function describeDtypes(plan: Plan): string {
  const dtypes = {
    linear: plan.linear.dtype ?? plan.dtype,
    attention: attentionDtype(plan),
    ...(plan.mesh.cp > 1 ? { ring: ringDtype(plan) } : {}),
  };
  const groups = (["e4m3", "fp16"] as const).flatMap((other) => {
    const parts = Object.entries(dtypes).flatMap(([part, dtype]) => (dtype === other ? [part] : []));
    return parts.length === 0 ? [] : [`${other} ${parts.join(" + ")}`];
  });
  return [plan.dtype, ...groups].join(", ");
}

/** For people: the plan's name and its dtypes, which a name made of the mesh and the precision need not say twice. */
export function planTitle(plan: Plan): string {
  const name = plan.name === planName(plan) ? meshName(plan.mesh) : plan.name;
  return `plan ${name} (${describeDtypes(plan)})`;
}

/** Of a plan without a name: its mesh and its precision. */
export function planName(plan: Plan): string {
  return `${meshName(plan.mesh)} ${planPrecision(plan)}`;
}
