import type { WanModel } from "../../schema.js";
import { type ModulePath, modulesInBlock, modulesOutside } from "../tensors/transformer-modules.js";

/** A shape; undefined for a length that only the checkpoint tells. */
export type Shape = readonly (number | undefined)[];

/** Every parameter of the transformer by its published name, with its shape. */
export function parameterShapes(model: WanModel): ReadonlyMap<string, Shape> {
  const { width, ffn, layers, channels, patch, freqDim, textEncoder } = model;
  const pixels = channels * patch * patch;
  const shapes = new Map<string, Shape>();
  const linear = (path: string, inputs: number | undefined, outputs: number) => {
    shapes.set(`${path}.weight`, [outputs, inputs]);
    shapes.set(`${path}.bias`, [outputs]);
  };
  shapes.set("patch_embedding.weight", [width, channels, 1, patch, patch]);
  shapes.set("patch_embedding.bias", [width]);
  linear("text_embedding.0", textEncoder?.width, width);
  linear("text_embedding.2", width, width);
  linear("time_embedding.0", freqDim, width);
  linear("time_embedding.2", width, width);
  linear("time_projection.1", width, 6 * width);
  linear("head.head", width, pixels);
  shapes.set("head.modulation", [1, 2, width]);
  for (let index = 0; index < layers; index++) {
    const block = `blocks.${index}`;
    shapes.set(`${block}.modulation`, [1, 6, width]);
    for (const attention of ["self_attn", "cross_attn"]) {
      for (const part of ["q", "k", "v", "o"]) linear(`${block}.${attention}.${part}`, width, width);
      for (const norm of ["norm_q", "norm_k"]) shapes.set(`${block}.${attention}.${norm}.weight`, [width]);
    }
    shapes.set(`${block}.norm3.weight`, [width]);
    shapes.set(`${block}.norm3.bias`, [width]);
    linear(`${block}.ffn.0`, width, ffn);
    linear(`${block}.ffn.2`, ffn, width);
  }
  return shapes;
}

/** Dots and underscores alike, since trainers write either, and both in one name. */
const plain = (name: string) => name.replaceAll(".", "_");

/** What stands before a module's name, by who writes it, once all dots are underscores. Several may stand in a row. */
const prefixes = [
  ...["diffusion_model_", "model_", "base_model_", "transformer_", "unet_", "pipe_", "dit_"],
  ...["lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_"],
];

/** Modules that files for other models have, which this one lacks, and how messages call them all. */
const absent: readonly (readonly [RegExp, string])[] = [
  [/^transformer_2_/, "the second transformer (transformer_2)"],
  [/^blocks_\d+_cross_attn_(?:[kv]_img|norm_k_img)$|^img_emb_/, "the image branch (k_img, v_img, img_emb)"],
  [
    /^blocks_\d+_attn2_(?:add_[kv]_proj|norm_added_[kqv])$|^condition_embedder_image_embedder_/,
    "the image branch (add_k_proj, add_v_proj, image_embedder)",
  ],
  [/^vace_/, "VACE's branch (vace_blocks)"],
];

export type FoundModule =
  /** A module of this model, by its published name. */
  | { readonly module: string }
  /** One that only other models have. */
  | { readonly absent: string };

/** Finds modules of a model by the names that LoRA files give them. */
export class ModuleNames {
  readonly #modules = new Map<string, string>();

  constructor({ layers }: WanModel) {
    const add = (published: string, diffusers: string) => {
      this.#modules.set(plain(published), published);
      this.#modules.set(plain(diffusers), published);
    };
    const here = (modules: readonly ModulePath[]) => modules.filter(({ only }) => only === undefined);
    for (const { published, diffusers } of here(modulesOutside)) add(published, diffusers);
    // Its modulation.
    add("head", "head");
    for (let index = 0; index < layers; index++) {
      const block = `blocks.${index}`;
      add(block, block);
      for (const { published, diffusers } of here(modulesInBlock))
        add(`${block}.${published}`, `${block}.${diffusers}`);
    }
  }

  /** @returns undefined for a name that means nothing here. */
  find(name: string): FoundModule | undefined {
    let rest = plain(name);
    for (;;) {
      const module = this.#modules.get(rest);
      if (module !== undefined) return { module };
      const lacking = absent.find(([pattern]) => pattern.test(rest));
      if (lacking) return { absent: lacking[1] };
      const prefix = prefixes.find((each) => rest.startsWith(each));
      if (prefix === undefined) return undefined;
      rest = rest.slice(prefix.length);
    }
  }
}
