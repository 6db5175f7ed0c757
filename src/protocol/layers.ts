import type { LayerRule, Plan, Split } from "./plan.js";

/** How the DiT's layers are split where the plan's `layers` say nothing. */
export const ditLayerRules: readonly LayerRule[] = [
  { path: "blocks.*.attn.qkv", split: "heads" },
  { path: "blocks.*.attn.proj", split: "row" },
  { path: "blocks.*.mlp.0", split: "column" },
  { path: "blocks.*.mlp.2", split: "row" },
];

/** Whether a rule's pattern stands for a module path: segments are equal, or the pattern's is `*`. */
export function matchesPath(pattern: string, path: string): boolean {
  const wanted = pattern.split(".");
  const segments = path.split(".");
  return wanted.length === segments.length && wanted.every((want, index) => want === "*" || want === segments[index]);
}

/** The split of a module: the last matching rule of the plan, else of the model; the head goes with the embeddings. */
export function splitOf(plan: Plan, defaults: readonly LayerRule[], path: string): Split {
  const embeddings: LayerRule = { path: "head", split: plan.embeddings.tensorParallel ? "column" : "replicated" };
  const rules = [embeddings, ...defaults, ...plan.layers];
  return rules.findLast((rule) => matchesPath(rule.path, path))?.split ?? "replicated";
}
