import { largestSeed, mostWorkers } from "../../limits.js";
import type { AttentionDtype, ComputeDtype } from "../../plan/schema.js";
import { choice, maybe, type Option, optional, path, refuse, type Values, whole, withDefault } from "../option.js";

const degree = (describe: string) => optional({ value: "N", describe }, whole(1, mostWorkers));

const computeDtypes: readonly ComputeDtype[] = ["fp32", "bf16"];
const attentionDtypes: readonly AttentionDtype[] = ["fp32", "bf16", "fp16", "e4m3"];
const otherDtypes = {
  ...{ fp8: "fp8 is --fp8", e4m3: "fp8 is --fp8", float8: "fp8 is --fp8" },
  ...{ bfloat16: "bfloat16 is bf16", float32: "float32 is fp32", float: "float32 is fp32" },
  ...{ fp16: "only --attention and --vae-dtype take fp16", float16: "only --attention and --vae-dtype take fp16" },
};
const otherAttentionDtypes = {
  ...{ fp8: "fp8 is e4m3", float8: "fp8 is e4m3", float16: "float16 is fp16" },
  ...{ bfloat16: "bfloat16 is bf16", float32: "float32 is fp32" },
};

/** Of every command that runs a model: which one, how workers share it, and what it computes in. */
export const modelOptions = {
  model: path("MODEL", "model", {
    describe: "A name in configs/models or FILE.yaml; wan: 1.4B, 14B, 2.2-T2V-A14B or tiny",
  }),
  plan: path("PLAN", "plan", { describe: "How workers share the model: a name in configs/plans or FILE.yaml" }),
  cfg: degree("Guidance parallel degree"),
  cp: degree("Context parallel degree: workers that share the tokens"),
  tp: degree("Tensor parallel degree: workers that share heads and hidden columns"),
  dtype: choice(computeDtypes, { describe: "Weights and activations", usual: "the plan's, else bf16" }, otherDtypes),
  fp8: maybe("Linear layers, self-attention and its ring in e4m3 (plan files choose part by part)"),
  attention: choice(
    attentionDtypes,
    {
      describe: "Self-attention's operands and its ring; fp16 for the DiT",
      usual: "the plan's, else --dtype; with --fp8 e4m3",
    },
    otherAttentionDtypes,
  ),
  seed: withDefault(
    { value: "N", describe: "Seed of random weights, inputs and noise: 64 bits, or -1 to draw one", usual: "0" },
    0n,
    readSeed,
  ),
} satisfies Record<string, Option<unknown>>;

export type ModelOptions = Values<typeof modelOptions>;

/** -1n asks for one to be drawn. @throws DitrunError for what is no seed. */
export function readSeed(text: string, name: string): bigint {
  if (text === "-1") return -1n;
  if (/^\d+$/.test(text) && BigInt(text) <= largestSeed) return BigInt(text);
  return refuse(name, text, `a whole number from 0 to ${largestSeed}, or -1 to draw one`);
}
