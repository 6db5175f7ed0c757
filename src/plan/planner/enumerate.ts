import { DitrunError } from "../../failure.js";
import { tokenCount } from "../../models/cost.js";
import type { LatentSize, Model } from "../../models/schema.js";
import { checkPlan } from "../check.js";
import { planName } from "../names.js";
import type { Plan } from "../schema.js";

/** A mesh that cannot be, and why. */
export interface Refusal {
  readonly plan: Plan;
  readonly why: string;
}

const divisors = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);

/** Every mesh of so many workers: cfg × cp × tp, cfg first. */
export function meshesOf(workers: number): Plan["mesh"][] {
  return divisors(workers).flatMap((cfg) =>
    divisors(workers / cfg).map((tp) => ({ cfg, cp: workers / (cfg * tp), tp })),
  );
}

/** Meshes that nobody asks about: guidance has two texts, so no more than two groups of workers can share it. */
const MOST_CFG = 2;

/** All plans of so many workers with the other keys of `base`: those that the engine runs, and the others with its reason. */
export function enumeratePlans(
  model: Model,
  base: Plan,
  workers: number,
  { size, oneForward = false }: { readonly size?: LatentSize | undefined; readonly oneForward?: boolean | undefined },
): { readonly plans: readonly Plan[]; readonly refused: readonly Refusal[] } {
  const tokens = tokenCount(model, size);
  const plans: Plan[] = [];
  const refused: Refusal[] = [];
  for (const mesh of meshesOf(workers)) {
    if (mesh.cfg > MOST_CFG) continue;
    const { name: _name, ...keys } = base;
    const plan: Plan = { ...keys, mesh };
    plan.name = planName(plan);
    if (oneForward && mesh.cfg > 1) {
      refused.push({ plan, why: "Guidance 1 makes one forward a step, so cfg must be 1." });
      continue;
    }
    try {
      checkPlan(plan, model, tokens);
      plans.push(plan);
    } catch (error) {
      if (!(error instanceof DitrunError)) throw error;
      refused.push({ plan, why: error.message });
    }
  }
  return { plans, refused };
}
