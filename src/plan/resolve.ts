import { access } from "node:fs/promises";
import { basename, join } from "node:path";
import { DitrunError } from "../failure.js";
import { findDocument, readDocument } from "../files/documents.js";
import { tokenCount } from "../models/cost.js";
import { matchesPath, splitOf } from "../models/layer-rules.js";
import { traitsOf } from "../models/registry.js";
import type { Model } from "../models/schema.js";
import { plansDirectory } from "../paths.js";
import { counted } from "../text.js";
import {
  type AttentionDtype,
  attentionDtype,
  type ComputeDtype,
  checkDtypes,
  meshName,
  meshSize,
  type Plan,
  planSchema,
  ringDtype,
  type Split,
  type VaeDtype,
} from "./schema.js";
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

/**
 * The plan to run.
 * @param nproc the number of workers the user asked for, if any; the mesh must fill it exactly.
 * @param tokens of one forward; a Wan model's depend on the video's size.
 * @param available workers to use when neither a plan, a mesh flag nor nproc says how many (all GPUs, or 1 on a CPU).
 * @throws DitrunError when the plan is not valid, does not fit the model, or does not fill nproc.
 */
export async function resolvePlan(
  flags: PlanFlags,
  model: Model,
  nproc: number | undefined,
  available: number,
  tokens: number = tokenCount(model),
): Promise<Plan> {
  const plan = flags.plan === undefined ? planSchema.parse({}) : await readPlan(flags.plan);
  const meshGiven =
    flags.plan !== undefined || flags.cfg !== undefined || flags.cp !== undefined || flags.tp !== undefined;
  if (!meshGiven) plan.mesh = traitsOf(model).defaultMesh(nproc ?? available);
  for (const axis of ["cfg", "cp", "tp"] as const) plan.mesh[axis] = flags[axis] ?? plan.mesh[axis];
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
  const changed = [flags.cfg, flags.cp, flags.tp, flags.dtype, flags.fp8, flags.attention].some(
    (flag) => flag !== undefined,
  );
  if (changed) delete plan.name;
  plan.name ??= planName(plan);
  try {
    checkPlan(plan, model, tokens);
  } catch (error) {
    if (meshGiven || !(error instanceof DitrunError) || error.code !== "ERR_PLAN_MESH") throw error;
    const { cfg, cp, tp } = plan.mesh;
    const whose = nproc === undefined ? "" : `--nproc ${nproc} makes cfg ${cfg} × cp ${cp} × tp ${tp}. `;
    throw new DitrunError(error.code, `${whose}${error.message}`);
  }
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

function planName(plan: Plan): string {
  return `${meshName(plan.mesh)} ${planPrecision(plan)}`;
}

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

/** DITRUN_MAX_KV_BLOCKS of ditrun.h. */
export const MOST_RING_RANKS = 16;
/** DITRUN_MAX_PEERS of ditrun.h: ranks of a sum or a gather over peer memory. */
export const MOST_PEERS = 32;

/** Checks a plan by itself and against a model. @throws DitrunError with the numbers that do not fit and what would. */
export function checkPlan(plan: Plan, model: Model, tokens: number): void {
  const { cp, tp } = plan.mesh;
  checkDtypes(plan);
  const traits = traitsOf(model);
  traits.checkPlan(plan);
  if (model.heads % tp !== 0) {
    throw new DitrunError(
      "ERR_PLAN_MESH",
      `The ${model.heads} heads of ${model.name} cannot be shared by tp ${tp}: choose a tp that divides ${model.heads}.`,
    );
  }
  if (model.width % tp !== 0) {
    throw new DitrunError(
      "ERR_PLAN_MESH",
      `The width ${model.width} of ${model.name} cannot be shared by tp ${tp}: choose a tp that divides ${model.width}.`,
    );
  }
  if (cp > MOST_RING_RANKS && plan.ring.transport === "peer") {
    throw new DitrunError(
      "ERR_PLAN_MESH",
      `cp is ${cp}, but over peer copies attention walks over the keys of at most ${MOST_RING_RANKS} workers: choose a smaller cp, or ring.transport auto.`,
    );
  }
  const peers = traits.gathersOverMesh ? meshSize(plan.mesh) : tp;
  if (peers > MOST_PEERS && plan.ring.transport === "peer") {
    throw new DitrunError(
      "ERR_PLAN_MESH",
      `${traits.gathersOverMesh ? "The mesh has" : "tp is"} ${peers}, but over peer copies at most ${MOST_PEERS} workers add up or gather: choose fewer, or ring.transport auto.`,
    );
  }
  const sharers = cp * (plan.norms.sequenceParallel ? tp : 1);
  if (tokens < sharers) {
    throw new DitrunError(
      "ERR_PLAN_MESH",
      `${model.name} has ${counted(tokens, "token")} here, fewer than the ${sharers} workers that share them: choose a smaller cp.`,
    );
  }
  checkLayerRules(plan, model);
  checkSplits(plan, model);
}

/** Each rule of the plan must match a layer, and give it a split that this layer can have. */
function checkLayerRules(plan: Plan, model: Model): void {
  const paths = traitsOf(model)
    .linearLayers()
    .map(({ path }) => path);
  for (const [index, { path: pattern, split }] of plan.layers.entries()) {
    const matched = paths.filter((path) => matchesPath(pattern, path));
    if (matched.length === 0) {
      const patterns = [...new Set(paths.map((path) => path.replace(/^blocks\.\d+/, "blocks.*")))];
      throw new DitrunError(
        "ERR_PLAN_SPLIT",
        `layers[${index}].path of plan ${plan.name} is "${pattern}", which matches no layer of ${model.name}; its layers are ${patterns.join(", ")}.`,
      );
    }
    for (const path of matched) {
      const allowed = allowedSplits(path);
      if (!allowed.includes(split)) {
        throw new DitrunError(
          "ERR_PLAN_SPLIT",
          `layers[${index}].split of plan ${plan.name} is ${split} for ${path}; it must be one of ${allowed.join(", ")}.`,
        );
      }
    }
  }
}

/** tp must divide what is split by columns, and a layer and the one that takes its output must be split alike. */
function checkSplits(plan: Plan, model: Model): void {
  const { tp } = plan.mesh;
  const { layerRules, linearLayers } = traitsOf(model);
  for (const { path, outputs } of linearLayers()) {
    const split = splitOf(plan, layerRules, path);
    if (split === "column" && outputs % tp !== 0) {
      throw new DitrunError(
        "ERR_PLAN_MESH",
        `The ${outputs} outputs of ${path} of ${model.name} cannot be shared by tp ${tp}: choose a tp that divides ${outputs}, or split it as replicated.`,
      );
    }
    const next = consumer(path);
    if (next === undefined) continue;
    const nextSplit = splitOf(plan, layerRules, next);
    // What a split layer leaves divided over tp, only a row-split layer can take, and it takes nothing else.
    if ((split === "replicated") !== (nextSplit === "replicated")) {
      throw new DitrunError(
        "ERR_PLAN_SPLIT",
        `Plan ${plan.name} splits ${path} as ${split} and ${next} as ${nextSplit}: split both (${allowedSplits(path)[0]}, row) or neither (replicated, replicated).`,
      );
    }
  }
}

function allowedSplits(path: string): Split[] {
  if (/\.(qkv|q|k|v)$/.test(path)) return ["heads", "replicated"];
  return path === "head" || path.endsWith(".0") ? ["column", "replicated"] : ["row", "replicated"];
}

/** The layer that takes this layer's output along the tp split, if there is one. */
function consumer(path: string): string | undefined {
  if (path.endsWith(".qkv")) return path.replace(/qkv$/, "proj");
  if (/\.[qkv]$/.test(path)) return path.replace(/[qkv]$/, "o");
  return path.endsWith(".0") ? path.replace(/0$/, "2") : undefined;
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
