import type { LayerRule, Plan, Split } from "../plan/schema.js";

/** How the DiT's layers are split where the plan's `layers` say nothing. */
export const ditLayerRules: readonly LayerRule[] = [
  { path: "blocks.*.attn.qkv", split: "heads" },
  { path: "blocks.*.attn.proj", split: "row" },
  { path: "blocks.*.mlp.0", split: "column" },
  { path: "blocks.*.mlp.2", split: "row" },
];

/** The same for Wan's transformer, by the names of the original checkpoints. q, k and v of one attention are split alike. */
export const wanLayerRules: readonly LayerRule[] = [
  ...["self_attn", "cross_attn"].flatMap((attention): LayerRule[] => [
    { path: `blocks.*.${attention}.q`, split: "heads" },
    { path: `blocks.*.${attention}.k`, split: "heads" },
    { path: `blocks.*.${attention}.v`, split: "heads" },
    { path: `blocks.*.${attention}.o`, split: "row" },
  ]),
  { path: "blocks.*.ffn.0", split: "column" },
  { path: "blocks.*.ffn.2", split: "row" },
];

/** The same for Wan's text encoder, which plans do not change. */
export const textEncoderLayerRules: readonly LayerRule[] = [
  { path: "blocks.*.attn.q", split: "heads" },
  { path: "blocks.*.attn.k", split: "heads" },
  { path: "blocks.*.attn.v", split: "heads" },
  { path: "blocks.*.attn.o", split: "row" },
  { path: "blocks.*.ffn.gate.0", split: "column" },
  { path: "blocks.*.ffn.fc1", split: "column" },
  { path: "blocks.*.ffn.fc2", split: "row" },
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
