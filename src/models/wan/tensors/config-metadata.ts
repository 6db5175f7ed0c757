import { z } from "zod";
import type { TensorFile } from "../../../formats/tensor-file.js";
import { layerCountSchema, sizeSchema, type WanModel } from "../../schema.js";

/** config.json of the published code: wan/modules/model.py, WanModel. */
export const wanConfigSchema = z.object({
  model_type: z.literal("t2v"),
  text_len: sizeSchema,
  in_dim: sizeSchema,
  dim: sizeSchema,
  ffn_dim: sizeSchema,
  freq_dim: sizeSchema.multipleOf(2),
  num_heads: layerCountSchema,
  num_layers: layerCountSchema,
  eps: z.number().positive(),
});
export type WanConfig = z.infer<typeof wanConfigSchema>;

/** The key of a file's metadata that its configuration stands under, as JSON. */
const KEY = "config";

/** The configuration of a model, as a file's metadata has it. */
export function writtenConfig(model: WanModel): string {
  const { width, ffn, heads, layers, channels, freqDim, textLength, epsilon } = model;
  const config: WanConfig & { out_dim: number } = {
    ...{ model_type: "t2v", text_len: textLength, in_dim: channels, out_dim: channels, dim: width, ffn_dim: ffn },
    ...{ freq_dim: freqDim, num_heads: heads, num_layers: layers, eps: epsilon },
  };
  return JSON.stringify(config);
}

/** The configuration that a file has inside; undefined where there is none, or one of another program. */
export function configIn(file: TensorFile): WanConfig | undefined {
  const text = file.about.metadata.get(KEY);
  if (typeof text !== "string") return undefined;
  try {
    return wanConfigSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
