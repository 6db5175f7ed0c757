import { z } from "zod";

const size = z.int().min(1);

/** The DiT benchmark model: patch embedding, `depth` transformer blocks, linear head (configs/models/dit.yaml). */
export const ditModelSchema = z.strictObject({
  kind: z.literal("dit"),
  name: z.string().min(1),
  /** Pixels on each side of the square image. */
  imageSize: size,
  channels: size,
  patch: size,
  /** Model width d. */
  width: size,
  depth: size,
  heads: size,
  classes: size,
});
export type DitModel = z.infer<typeof ditModelSchema>;

export const modelSchema = z.discriminatedUnion("kind", [ditModelSchema]);
export type Model = z.infer<typeof modelSchema>;
