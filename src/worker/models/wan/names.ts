import type { Tensor } from "../../runtime/tensor.js";
import type { OnTheWay, Parameter, Part, WeightSource } from "../../weights/source.js";

/** How a checkpoint names what the model calls by the names of the published code. */
export type Naming = (name: string) => string;

type Rule = readonly [pattern: RegExp, replacement: string];

const renaming =
  (rules: readonly Rule[]): Naming =>
  (name) => {
    const rule = rules.find(([pattern]) => pattern.test(name));
    return rule ? name.replace(rule[0], rule[1]) : name;
  };

const same: Naming = (name) => name;

/** Names of the transformer's parameters, by layout. */
export const transformerNames: Readonly<Record<"original" | "diffusers", Naming>> = {
  original: same,
  diffusers: renaming([
    [/^text_embedding\.0\./, "condition_embedder.text_embedder.linear_1."],
    [/^text_embedding\.2\./, "condition_embedder.text_embedder.linear_2."],
    [/^time_embedding\.0\./, "condition_embedder.time_embedder.linear_1."],
    [/^time_embedding\.2\./, "condition_embedder.time_embedder.linear_2."],
    [/^time_projection\.1\./, "condition_embedder.time_proj."],
    [/^(blocks\.\d+)\.self_attn\.([qkv])\./, "$1.attn1.to_$2."],
    [/^(blocks\.\d+)\.self_attn\.o\./, "$1.attn1.to_out.0."],
    [/^(blocks\.\d+)\.self_attn\./, "$1.attn1."],
    [/^(blocks\.\d+)\.cross_attn\.([qkv])\./, "$1.attn2.to_$2."],
    [/^(blocks\.\d+)\.cross_attn\.o\./, "$1.attn2.to_out.0."],
    [/^(blocks\.\d+)\.cross_attn\./, "$1.attn2."],
    [/^(blocks\.\d+)\.norm3\./, "$1.norm2."],
    [/^(blocks\.\d+)\.ffn\.0\./, "$1.ffn.net.0.proj."],
    [/^(blocks\.\d+)\.ffn\.2\./, "$1.ffn.net.2."],
    [/^(blocks\.\d+)\.modulation$/, "$1.scale_shift_table"],
    [/^head\.head\./, "proj_out."],
    [/^head\.modulation$/, "scale_shift_table"],
  ]),
};

/** Names of the text encoder's parameters, by layout. */
export const textEncoderNames: Readonly<Record<"original" | "diffusers", Naming>> = {
  original: same,
  diffusers: renaming([
    [/^token_embedding\./, "shared."],
    [/^blocks\.(\d+)\.attn\.([qkvo])\./, "encoder.block.$1.layer.0.SelfAttention.$2."],
    [/^blocks\.(\d+)\.pos_embedding\.embedding\./, "encoder.block.$1.layer.0.SelfAttention.relative_attention_bias."],
    [/^blocks\.(\d+)\.norm1\./, "encoder.block.$1.layer.0.layer_norm."],
    [/^blocks\.(\d+)\.norm2\./, "encoder.block.$1.layer.1.layer_norm."],
    [/^blocks\.(\d+)\.ffn\.gate\.0\./, "encoder.block.$1.layer.1.DenseReluDense.wi_0."],
    [/^blocks\.(\d+)\.ffn\.fc1\./, "encoder.block.$1.layer.1.DenseReluDense.wi_1."],
    [/^blocks\.(\d+)\.ffn\.fc2\./, "encoder.block.$1.layer.1.DenseReluDense.wo."],
    [/^norm\./, "encoder.final_layer_norm."],
  ]),
};

/** Weights that go by other names where they are stored. */
export class RenamedWeights implements WeightSource {
  constructor(
    private readonly stored: WeightSource,
    private readonly naming: Naming,
  ) {}

  load(parameter: Parameter, part: Part, out: Tensor, onTheWay?: OnTheWay): Promise<void> {
    return this.stored.load({ ...parameter, name: this.naming(parameter.name) }, part, out, onTheWay);
  }

  close(): Promise<void> {
    return this.stored.close();
  }
}
