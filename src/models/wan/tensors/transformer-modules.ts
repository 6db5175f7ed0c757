/** A module's path in the published code and in diffusers. */
export interface ModulePath {
  readonly published: string;
  readonly diffusers: string;
  /** Of the branch that only image-to-video models have, or VACE's. */
  readonly only?: "image" | "VACE";
}

const own = (published: string, diffusers: string): ModulePath => ({ published, diffusers });
const image = (published: string, diffusers: string): ModulePath => ({ published, diffusers, only: "image" });
const vace = (published: string, diffusers: string): ModulePath => ({ published, diffusers, only: "VACE" });

/** Modules of a block. Source: diffusers, scripts/convert_wan_to_diffusers.py. */
export const modulesInBlock: readonly ModulePath[] = [
  ...["self_attn", "cross_attn"].flatMap((attention, index) => {
    const other = `attn${index + 1}`;
    return [
      ...["q", "k", "v"].map((part) => own(`${attention}.${part}`, `${other}.to_${part}`)),
      own(`${attention}.o`, `${other}.to_out.0`),
      ...["norm_q", "norm_k"].map((norm) => own(`${attention}.${norm}`, `${other}.${norm}`)),
    ];
  }),
  own("norm3", "norm2"),
  own("ffn.0", "ffn.net.0.proj"),
  own("ffn.2", "ffn.net.2"),
  ...["k", "v"].map((part) => image(`cross_attn.${part}_img`, `attn2.add_${part}_proj`)),
  image("cross_attn.norm_k_img", "attn2.norm_added_k"),
  vace("before_proj", "proj_in"),
  vace("after_proj", "proj_out"),
];

/** Modules outside the blocks; the same source. */
export const modulesOutside: readonly ModulePath[] = [
  own("patch_embedding", "patch_embedding"),
  ...["text", "time"].flatMap((what) => [
    own(`${what}_embedding.0`, `condition_embedder.${what}_embedder.linear_1`),
    own(`${what}_embedding.2`, `condition_embedder.${what}_embedder.linear_2`),
  ]),
  own("time_projection.1", "condition_embedder.time_proj"),
  own("head.head", "proj_out"),
  image("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
  image("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
  image("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
  image("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
];
