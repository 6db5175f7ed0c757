import { DitrunError } from "../failure.js";
import { matchesPath, splitOf } from "../models/layer-rules.js";
import { traitsOf } from "../models/registry.js";
import type { Model } from "../models/schema.js";
import { counted } from "../text.js";
import { checkDtypes, meshSize, type Plan, type Split } from "./schema.js";

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
