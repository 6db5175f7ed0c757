import { findModel } from "../models/wan/find-model.js";
import { checkWorkers, readPlan, resolvePlan } from "./resolve.js";
import { checkDtypes, type Plan } from "./schema.js";

/** What a plan is checked against. */
export interface PlanRequest {
  /** Workers, which the plan's mesh must fill exactly. */
  readonly nproc?: number | undefined;
  /** A model by name, as `dit` or `1.4B`, a YAML file or a checkpoint's folder: heads, width and layers must fit the plan. */
  readonly model?: string | undefined;
}

/**
 * Reads a plan and checks it.
 * @param nameOrFile a plan that ships, as `cp4-tp2-fp8`, a mesh written out, as `cp3-tp2`, or a file that ends in .yaml.
 * @throws DitrunError ERR_DOCUMENT_UNKNOWN, ERR_FILE_READ, ERR_YAML or ERR_SCHEMA when there is no such plan, and a code that
 * begins with ERR_PLAN_ when it contradicts itself, the model or the number of workers.
 */
export async function loadPlan(nameOrFile: string, { nproc, model }: PlanRequest = {}): Promise<Plan> {
  if (model !== undefined) {
    const { model: sizes } = await findModel(model);
    return resolvePlan({ plan: nameOrFile }, sizes, nproc, 1);
  }
  const plan = await readPlan(nameOrFile);
  checkDtypes(plan);
  if (nproc !== undefined) checkWorkers(plan, nproc);
  return plan;
}
