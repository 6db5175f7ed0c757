import { z } from "zod";
import { nameSchema } from "../plan/schema.js";

/** Far above any model, and far below what would never end. */
export const sizeSchema = z
  .int()
  .min(1)
  .max(2 ** 24);
export const layerCountSchema = z.int().min(1).max(10_000);
const size = sizeSchema;
const count = layerCountSchema;

/** The DiT benchmark model: patch embedding, `depth` transformer blocks, linear head (configs/models/dit.yaml). */
export const ditModelSchema = z.strictObject({
  kind: z.literal("dit"),
  name: nameSchema,
  /** Pixels on each side of the square image. */
  imageSize: size,
  channels: size,
  patch: size,
  /** Model width d. */
  width: size,
  depth: count,
  heads: count,
  classes: size,
});
export type DitModel = z.infer<typeof ditModelSchema>;

/** The umT5 encoder that Wan reads its prompts with: 24 layers of width 4096 in the published checkpoints. */
export const textEncoderModelSchema = z.strictObject({
  /** Rows of the token table. */
  vocabulary: size,
  width: size,
  ffn: size,
  heads: count,
  headDim: size,
  layers: count,
});
export type TextEncoderModel = z.infer<typeof textEncoderModelSchema>;

/** A part of the 1000 time steps. */
export const boundarySchema = z.number().gt(0).lt(1);

/** Wan text-to-video: the transformer over a video's latent, and its text encoder (configs/models/wan-1.3b.yaml). */
export const wanModelSchema = z.strictObject({
  kind: z.literal("wan"),
  name: nameSchema,
  width: size,
  ffn: size,
  heads: count,
  layers: count,
  /** Channels of the latent, in and out. */
  channels: size,
  /** Height and width of a patch of the latent; a patch spans one latent frame. */
  patch: size,
  /** Width of the time step's sinusoidal embedding; even. */
  freqDim: size.multipleOf(2),
  /** Rows of text that cross-attention sees; shorter prompts are padded with zeros. */
  textLength: size,
  epsilon: z.number().positive(),
  /**
   * Of the 1000 time steps, where the second of two transformers takes over (Wan 2.2 A14B): the first has those from 1000 · boundary on.
   * Absent where there is one.
   */
  boundary: boundarySchema.optional(),
  /** Absent where a checkpoint's tensors say it: the original layout has no configuration for its text encoder. */
  textEncoder: textEncoderModelSchema.optional(),
});
export type WanModel = z.infer<typeof wanModelSchema>;

/** A video's latent: an eighth of its pixels each way, and (frames - 1) / 4 + 1 of its frames. */
export const latentSizeSchema = z.strictObject({ frames: size, height: size, width: size });
export type LatentSize = z.infer<typeof latentSizeSchema>;

/** Tokens of a latent: one for each patch of each frame. */
export function wanTokens({ patch }: WanModel, { frames, height, width }: LatentSize): number {
  return frames * (height / patch) * (width / patch);
}

export const modelSchema = z.discriminatedUnion("kind", [ditModelSchema, wanModelSchema]);
export type Model = z.infer<typeof modelSchema>;
