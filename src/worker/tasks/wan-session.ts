import { DitrunError } from "../../failure.js";
import { splitOf, textEncoderLayerRules, wanLayerRules } from "../../models/layer-rules.js";
import type { LatentSize, WanModel } from "../../models/schema.js";
import { openPart } from "../../models/wan/tensors/open-part.js";
import { textEncoderFacts } from "../../models/wan/tensors/other-facts.js";
import type { WanWeights } from "../../protocol/job.js";
import type { Context } from "../comm/context.js";
import type { Precision } from "../layers/precision.js";
import { TextEncoder } from "../models/wan/text-encoder.js";
import { WanTransformer } from "../models/wan/transformer.js";
import { WanVae } from "../models/wan/vae/vae.js";
import { CheckpointWeights } from "../weights/checkpoint.js";
import type { KeptWeights } from "../weights/kept.js";
import { RandomWeights, type WeightSource } from "../weights/source.js";
import { whileOpen } from "../weights/while-open.js";

/** Loads the text encoder of a model; its sizes come from the model, else from the checkpoint. */
export async function loadTextEncoder(
  context: Context,
  model: WanModel,
  weights: WanWeights,
  kept?: KeptWeights,
): Promise<TextEncoder> {
  const load = async (source: WeightSource, sizes: NonNullable<WanModel["textEncoder"]>) => {
    const rules = (path: string) => splitOf(context.plan, textEncoderLayerRules, path);
    const loader = { context, source, splitOf: rules, kept };
    return whileOpen(context.device, source, () => TextEncoder.load(loader, sizes, model.textLength));
  };
  if (weights.from === "random") {
    if (!model.textEncoder) {
      throw new DitrunError(
        "ERR_MODEL_CONFIG",
        `${model.name} has no textEncoder sizes, which random weights need: add them to the model.`,
      );
    }
    return load(new RandomWeights(context.device, weights.seed), model.textEncoder);
  }
  const file = await openPart(weights.textEncoder, "text encoder");
  return load(new CheckpointWeights(context.device, file), model.textEncoder ?? textEncoderFacts(file));
}

/**
 * Loads the transformer for latents of one size.
 * @param textWidth columns of the text encoder's output.
 * @param precision to hold it both as the plan says and in the plan's dtype throughout.
 */
export async function loadTransformer(
  context: Context,
  model: WanModel,
  weights: WanWeights,
  textWidth: number,
  size: LatentSize,
  precision?: Precision,
  kept?: KeptWeights,
): Promise<WanTransformer> {
  const source =
    weights.from === "random"
      ? new RandomWeights(context.device, weights.seed, weights.wide ? model.layers : undefined)
      : new CheckpointWeights(context.device, await openPart(weights.transformer, "transformer"));
  const rules = (path: string) => splitOf(context.plan, wanLayerRules, path);
  const loader = { context, source, splitOf: rules, precision, kept };
  return whileOpen(context.device, source, () => WanTransformer.load(loader, model, textWidth, size));
}

/** Loads the decoder half of the VAE. */
export async function loadVaeDecoder(context: Context, weights: WanWeights, kept?: KeptWeights): Promise<WanVae> {
  const wanted = { decoder: true, ...(kept && { kept }) };
  if (weights.from === "random") return WanVae.random(context, weights.seed, wanted);
  const file = await openPart(weights.vae, "VAE");
  return whileOpen(context.device, file, () => WanVae.load(context, file, wanted));
}
