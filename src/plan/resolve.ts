import { access } from "node:fs/promises";
import { basename, join } from "node:path";
import { DitrunError } from "../failure.js";
import { findDocument, readDocument } from "../files/documents.js";
import { tokenCount } from "../models/cost.js";
import { splitOf } from "../models/layer-rules.js";
import { traitsOf } from "../models/registry.js";
import type { LatentSize, Model } from "../models/schema.js";
import { plansDirectory } from "../paths.js";
import { counted } from "../text.js";
import { checkPlan } from "./check.js";
import { planName } from "./names.js";
import { type Choice, choosePlan } from "./planner/choose.js";
import type { Machine } from "./planner/device.js";
import { usualMachine } from "./planner/machine.js";
import { type AttentionDtype, type ComputeDtype, meshSize, type Plan, planSchema, type VaeDtype } from "./schema.js";
import { writtenPlan } from "./written.js";

/** What the command line says about the plan; each overrides the plan's file. */
export interface PlanFlags {
  plan?: string | undefined;
  cfg?: number | undefined;
  cp?: number | undefined;
  tp?: number | undefined;
  dtype?: ComputeDtype | undefined;
  fp8?: boolean | undefined;
  attention?: AttentionDtype | undefined;
  vaeDtype?: VaeDtype | undefined;
}

/** What a plan is resolved for. */
export interface PlanSetting {
  /** Of a video's latent; 81 frames of 832 × 480 unless given. */
  readonly size?: LatentSize | undefined;
  /** What the mesh is chosen for where the user names none; a host of H200 unless given. */
  readonly machine?: Machine | undefined;
  /** Guidance that leaves out the negative prompt: one forward a step. */
  readonly oneForward?: boolean | undefined;
  /** Told of a mesh that was chosen. */
  readonly onChoice?: ((choice: Choice) => void) | undefined;
}

/**
 * The plan to run. Where neither a plan nor a mesh flag is given, or --plan is auto, the planner chooses the mesh.
 * @param nproc the number of workers the user asked for, if any; the mesh must fill it exactly.
 * @param available workers to use when neither a plan, a mesh flag nor nproc says how many (all GPUs, or 1 on a CPU).
 * @throws DitrunError when the plan is not valid, does not fit the model, or does not fill nproc.
 */
export async function resolvePlan(
  flags: PlanFlags,
  model: Model,
  nproc: number | undefined,
  available: number,
  setting: PlanSetting = {},
): Promise<Plan> {
  const auto = flags.plan === "auto";
  const plan = flags.plan === undefined || auto ? planSchema.parse({}) : await readPlan(flags.plan);
  const meshGiven =
    (flags.plan !== undefined && !auto) || flags.cfg !== undefined || flags.cp !== undefined || flags.tp !== undefined;
  if (auto && meshGiven) {
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      "--plan auto chooses the mesh: leave out --cfg, --cp and --tp, or leave out --plan.",
    );
  }
  if (flags.dtype !== undefined) plan.dtype = flags.dtype;
  for (const part of ["linear", "attention", "ring"] as const) {
    if (flags.fp8) plan[part].dtype = "e4m3";
    // --no-fp8 of a plan that has it.
    if (flags.fp8 === false && plan[part].dtype === "e4m3") delete plan[part].dtype;
  }
  if (flags.attention !== undefined) {
    plan.attention.dtype = flags.attention;
    delete plan.ring.dtype;
  }
  if (flags.vaeDtype !== undefined) plan.vae.dtype = flags.vaeDtype;
  const { size, machine = usualMachine(), oneForward, onChoice } = setting;
  if (meshGiven) for (const axis of ["cfg", "cp", "tp"] as const) plan.mesh[axis] = flags[axis] ?? plan.mesh[axis];
  else {
    const choice = choosePlan({ model, plan, workers: nproc ?? available, machine, size, oneForward });
    plan.mesh = { ...choice.best.plan.mesh };
    onChoice?.(choice);
  }
  const changed = [flags.cfg, flags.cp, flags.tp, flags.dtype, flags.fp8, flags.attention].some(
    (flag) => flag !== undefined,
  );
  if (changed) delete plan.name;
  plan.name ??= planName(plan);
  checkPlan(plan, model, tokenCount(model, size));
  if (nproc !== undefined) checkWorkers(plan, nproc);
  return plan;
}

/** Refuses a mesh that does not fill the workers exactly. @throws DitrunError with the mesh and both numbers. */
export function checkWorkers({ mesh }: Plan, nproc: number): void {
  const workers = meshSize(mesh);
  if (nproc === workers) return;
  const { cfg, cp, tp } = mesh;
  throw new DitrunError(
    "ERR_PLAN_MESH",
    `The mesh cfg ${cfg} × cp ${cp} × tp ${tp} needs ${counted(workers, "worker")}, but --nproc is ${nproc}: change --nproc or the mesh.`,
  );
}

/**
 * A plan by name (configs/plans), written out as tables print it (`cp4×tp2`), or from a YAML file.
 * @throws DitrunError when it is unknown or not valid.
 */
export async function readPlan(nameOrFile: string): Promise<Plan> {
  const written = writtenPlan(nameOrFile);
  const shipped = written && join(plansDirectory, `${written.name}.yaml`);
  if (written && shipped && !(await isThere(shipped))) return written.plan;
  const file = shipped ?? (await findDocument("plan", plansDirectory, nameOrFile));
  const plan = await readDocument(file, planSchema);
  plan.name ??= basename(file)
    .replace(/\.ya?ml$/, "")
    .replace(/\p{Cc}/gu, "?");
  return plan;
}

const isThere = (file: string) =>
  access(file).then(
    () => true,
    () => false,
  );

/** The same plan for one worker. */
export function singleDevicePlan(plan: Plan): Plan {
  const single: Plan = { ...plan, mesh: { cfg: 1, cp: 1, tp: 1 } };
  single.name = planName(single);
  return single;
}

/** The same workers where guidance makes one forward a step: those of the second text share the tokens with the others. */
export function withoutGuidance(plan: Plan): Plan {
  const { cfg, cp, tp } = plan.mesh;
  const merged: Plan = { ...plan, mesh: { cfg: 1, cp: cfg * cp, tp } };
  merged.name = planName(merged);
  return merged;
}

/** Bytes of one rank's weights: linear layers by their split and dtype, embeddings and norms whole. */
export function weightBytes(model: Model, plan: Plan): number {
  const plain = plan.dtype === "fp32" ? 4 : 2;
  const linear = { fp32: 4, bf16: 2, e4m3: 1 }[plan.linear.dtype ?? plan.dtype];
  const { layerRules, linearLayers, otherParameters } = traitsOf(model);
  const layers = linearLayers().map(({ path, inputs, outputs }) => {
    const split = splitOf(plan, layerRules, path);
    const weight = (inputs * outputs * linear) / (split === "replicated" ? 1 : plan.mesh.tp);
    const bias = (outputs * plain) / (split === "heads" || split === "column" ? plan.mesh.tp : 1);
    return weight + bias;
  });
  return layers.reduce((sum, bytes) => sum + bytes, otherParameters() * plain);
}
