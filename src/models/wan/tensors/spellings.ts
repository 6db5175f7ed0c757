import { modulesInBlock, modulesOutside } from "./transformer-modules.js";

/** What a file may hold of a Wan model, or for one. */
export const parts = ["transformer", "text encoder", "VAE", "image encoder"] as const;
export type Part = (typeof parts)[number];

/** A way in which files name a part's tensors. */
export interface Spelling {
  readonly part: Part;
  /** Whose names they are. */
  readonly layout: "original" | "diffusers" | "Hugging Face" | "llama.cpp";
  /** A tensor that only such files have; what stands before it is a prefix of all names. */
  readonly anchor: string;
  /** The name of the published code for a name without prefix; undefined for what the part does not have. */
  canonical(name: string): string | undefined;
}

type Rule = readonly [pattern: RegExp, replacement: string | ((...groups: string[]) => string)];

/** A spelling by rules, all of which are applied in turn; what then is no name of the published code is unknown. */
function spelling(
  part: Part,
  layout: Spelling["layout"],
  anchor: string,
  known: RegExp,
  rules: readonly Rule[] = [],
): Spelling {
  return {
    ...{ part, layout, anchor },
    canonical(name) {
      let own = name;
      for (const [pattern, replacement] of rules) {
        own = typeof replacement === "string" ? own.replace(pattern, replacement) : own.replace(pattern, replacement);
      }
      return known.test(own) ? own : undefined;
    },
  };
}

const wb = "\\.(?:weight|bias)";

/** Wan2.1, wan/modules/model.py; VACE, vace/models/wan/modules/model.py. */
const transformer = new RegExp(
  [
    `^(?:patch_embedding|vace_patch_embedding|(?:text|time)_embedding\\.[02]|time_projection\\.1|head\\.head)${wb}$`,
    `^head\\.modulation$|^img_emb\\.emb_pos$|^img_emb\\.proj\\.[0134]${wb}$`,
    `^(?:vace_)?blocks\\.\\d+\\.(?:modulation|(?:norm3|(?:self|cross)_attn\\.[qkvo]|ffn\\.[02])${wb}|(?:self|cross)_attn\\.norm_[qk]\\.weight)$`,
    `^(?:vace_)?blocks\\.\\d+\\.cross_attn\\.(?:[kv]_img${wb}|norm_k_img\\.weight)$`,
    `^vace_blocks\\.\\d+\\.(?:before|after)_proj${wb}$`,
  ].join("|"),
);

const escaped = (path: string) => path.replaceAll(".", "\\.");

const diffusersTransformer: readonly Rule[] = [
  ...modulesOutside.map(({ published, diffusers }): Rule => [new RegExp(`^${escaped(diffusers)}\\.`), `${published}.`]),
  ...modulesInBlock.map(
    ({ published, diffusers }): Rule => [
      new RegExp(`^((?:vace_)?blocks\\.\\d+)\\.${escaped(diffusers)}\\.`),
      `$1.${published}.`,
    ],
  ),
  [/^condition_embedder\.image_embedder\.pos_embed$/, "img_emb.emb_pos"],
  [/^scale_shift_table$/, "head.modulation"],
  [/(blocks\.\d+)\.scale_shift_table$/, "$1.modulation"],
];

/** Wan2.1, wan/modules/t5.py. */
const textEncoder =
  /^(?:token_embedding|norm|blocks\.\d+\.(?:norm[12]|pos_embedding\.embedding|attn\.[qkvo]|ffn\.(?:gate\.0|fc[12])))\.weight$/;

/** Source: transformers, models/umt5/modeling_umt5.py. */
const huggingFaceTextEncoder: readonly Rule[] = [
  [/^shared\./, "token_embedding."],
  [/^encoder\.final_layer_norm\./, "norm."],
  [/^encoder\.block\.(\d+)\.layer\.0\.layer_norm\./, "blocks.$1.norm1."],
  [/^encoder\.block\.(\d+)\.layer\.1\.layer_norm\./, "blocks.$1.norm2."],
  [/^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\./, "blocks.$1.pos_embedding.embedding."],
  [/^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])\./, "blocks.$1.attn.$2."],
  [/^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\./, "blocks.$1.ffn.gate.0."],
  [/^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\./, "blocks.$1.ffn.fc1."],
  [/^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\./, "blocks.$1.ffn.fc2."],
];

/** Source: llama.cpp, gguf-py/gguf/constants.py, MODEL_ARCH.T5ENCODER. */
const llamaTextEncoder: readonly Rule[] = [
  [/^token_embd\./, "token_embedding."],
  [/^enc\.output_norm\./, "norm."],
  [/^enc\.blk\.(\d+)\.attn_norm\./, "blocks.$1.norm1."],
  [/^enc\.blk\.(\d+)\.ffn_norm\./, "blocks.$1.norm2."],
  [/^enc\.blk\.(\d+)\.attn_rel_b\./, "blocks.$1.pos_embedding.embedding."],
  [/^enc\.blk\.(\d+)\.attn_([qkvo])\./, "blocks.$1.attn.$2."],
  [/^enc\.blk\.(\d+)\.ffn_gate\./, "blocks.$1.ffn.gate.0."],
  [/^enc\.blk\.(\d+)\.ffn_up\./, "blocks.$1.ffn.fc1."],
  [/^enc\.blk\.(\d+)\.ffn_down\./, "blocks.$1.ffn.fc2."],
];

const residual = `(?:residual\\.[03]\\.gamma|(?:residual\\.[26]|shortcut|resample\\.1|time_conv)${wb})`;
/** Wan2.1, wan/modules/vae.py; Wan2.2, wan/modules/vae2_2.py, which has one level of numbers more. */
const vae = new RegExp(
  [
    `^conv[12]${wb}$|^(?:encoder|decoder)\\.(?:(?:conv1|head\\.2)${wb}|head\\.0\\.gamma)$`,
    `^(?:encoder|decoder)\\.middle\\.(?:[02]\\.${residual}|1\\.(?:norm\\.gamma|(?:to_qkv|proj)${wb}))$`,
    `^encoder\\.downsamples\\.\\d+\\.(?:downsamples\\.\\d+\\.)?${residual}$`,
    `^decoder\\.upsamples\\.\\d+\\.(?:upsamples\\.\\d+\\.)?${residual}$`,
  ].join("|"),
);

/** Of Wan 2.1: three residual blocks and an upsampler make one of diffusers' up_blocks. */
const UP_BLOCK = 4;

/** Source: diffusers, scripts/convert_wan_to_diffusers.py. */
const diffusersVae = (levels: readonly Rule[]): readonly Rule[] => [
  [/^quant_conv\./, "conv1."],
  [/^post_quant_conv\./, "conv2."],
  [/^(encoder|decoder)\.norm_out\./, "$1.head.0."],
  [/^(encoder|decoder)\.conv_out\./, "$1.head.2."],
  [/\.mid_block\.resnets\.0\./, ".middle.0."],
  [/\.mid_block\.attentions\.0\./, ".middle.1."],
  [/\.mid_block\.resnets\.1\./, ".middle.2."],
  ...levels,
  [/(\.\d+)\.norm1\./, "$1.residual.0."],
  [/(\.\d+)\.conv1\./, "$1.residual.2."],
  [/(\.\d+)\.norm2\./, "$1.residual.3."],
  [/(\.\d+)\.conv2\./, "$1.residual.6."],
  [/(\.\d+)\.conv_shortcut\./, "$1.shortcut."],
  // Last: by now no other layer of this level is called so.
  [/^(encoder|decoder)\.conv_in\./, "$1.conv1."],
];
const levels21: readonly Rule[] = [
  [/\.down_blocks\./, ".downsamples."],
  [
    /\.up_blocks\.(\d+)\.resnets\.(\d+)\./,
    (_, block, index) => `.upsamples.${UP_BLOCK * Number(block) + Number(index)}.`,
  ],
  [/\.up_blocks\.(\d+)\.upsamplers\.0\./, (_, block) => `.upsamples.${UP_BLOCK * (Number(block) + 1) - 1}.`],
];
/** The sampler stands behind two residual blocks on the way down, and behind three on the way up. */
const levels22: readonly Rule[] = [
  [/\.down_blocks\.(\d+)\.resnets\.(\d+)\./, ".downsamples.$1.downsamples.$2."],
  [/\.down_blocks\.(\d+)\.downsampler\./, ".downsamples.$1.downsamples.2."],
  [/\.up_blocks\.(\d+)\.resnets\.(\d+)\./, ".upsamples.$1.upsamples.$2."],
  [/\.up_blocks\.(\d+)\.upsampler\./, ".upsamples.$1.upsamples.3."],
];

/** Wan2.1, wan/modules/clip.py; and transformers' CLIPVisionModel, whose q, k and v stand apart: its own names are kept. */
const clip = new RegExp(
  [
    `^visual\\.(?:cls_embedding|pos_embedding|head|patch_embedding\\.weight|(?:pre|post)_norm${wb})$`,
    `^visual\\.transformer\\.\\d+\\.(?:norm[12]|attn\\.(?:to_qkv|proj)|mlp\\.[02])${wb}$`,
  ].join("|"),
);
const huggingFaceClip = new RegExp(
  [
    "^vision_model\\.embeddings\\.(?:class_embedding|(?:position|patch)_embedding\\.weight)$",
    `^vision_model\\.(?:pre_layrnorm|post_layernorm)${wb}$|^visual_projection\\.weight$`,
    `^vision_model\\.encoder\\.layers\\.\\d+\\.(?:self_attn\\.(?:[qkv]|out)_proj|layer_norm[12]|mlp\\.fc[12])${wb}$`,
  ].join("|"),
);

export const spellings: readonly Spelling[] = [
  spelling("transformer", "original", "head.modulation", transformer),
  spelling("transformer", "diffusers", "condition_embedder.time_proj.weight", transformer, diffusersTransformer),
  spelling("text encoder", "original", "blocks.0.pos_embedding.embedding.weight", textEncoder),
  spelling(
    "text encoder",
    "Hugging Face",
    "encoder.block.0.layer.0.SelfAttention.q.weight",
    textEncoder,
    huggingFaceTextEncoder,
  ),
  spelling("text encoder", "llama.cpp", "enc.blk.0.attn_q.weight", textEncoder, llamaTextEncoder),
  spelling("VAE", "original", "decoder.middle.0.residual.0.gamma", vae),
  spelling("VAE", "diffusers", "decoder.up_blocks.0.upsamplers.0.resample.1.weight", vae, diffusersVae(levels21)),
  spelling("VAE", "diffusers", "decoder.up_blocks.0.upsampler.resample.1.weight", vae, diffusersVae(levels22)),
  spelling("image encoder", "original", "visual.transformer.0.attn.to_qkv.weight", clip),
  spelling("image encoder", "Hugging Face", "vision_model.encoder.layers.0.self_attn.q_proj.weight", huggingFaceClip),
];

/** VACE's own tensors, stored without the transformer that they belong to. */
export const vaceModule = spelling("transformer", "original", "vace_patch_embedding.weight", transformer);
