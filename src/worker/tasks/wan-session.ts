import { DitrunError } from "../../failure.js";
import type { LoraFile } from "../../formats/lora.js";
import { splitOf, textEncoderLayerRules, wanLayerRules } from "../../models/layer-rules.js";
import type { LatentSize, WanModel } from "../../models/schema.js";
import { openLora } from "../../models/wan/lora/open-lora.js";
import { openPart } from "../../models/wan/tensors/open-part.js";
import { textEncoderFacts } from "../../models/wan/tensors/other-facts.js";
import type { WanWeights } from "../../protocol/job.js";
import type { Context } from "../comm/context.js";
import type { Precision } from "../layers/precision.js";
import { TextEncoder } from "../models/wan/text-encoder.js";
import { WanTransformer } from "../models/wan/transformer.js";
import { WanVae } from "../models/wan/vae/vae.js";
import type { Device } from "../runtime/device.js";
import { CheckpointWeights } from "../weights/checkpoint.js";
import type { KeptWeights } from "../weights/kept.js";
import { type LaidLora, LoraWeights } from "../weights/lora-weights.js";
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
  { model, weights, loras = [] }: TransformerFiles,
  textWidth: number,
  size: LatentSize,
  precision?: Precision,
  kept?: KeptWeights,
): Promise<WanTransformer> {
  const rules = (path: string) => splitOf(context.plan, wanLayerRules, path);
  const load = (source: WeightSource) =>
    WanTransformer.load({ context, source, splitOf: rules, precision, kept }, model, textWidth, size);
  return withTransformerSource(context.device, { model, weights, loras }, (source) =>
    kept ? kept.source.lend(source, () => load(kept.source)) : load(source),
  );
}

/** A transformer's weights, and what is laid over them. */
export interface TransformerFiles {
  readonly model: WanModel;
  readonly weights: WanWeights;
  readonly loras?: readonly LoraFile[] | undefined;
}

/**
 * Opens a transformer's weights with LoRAs laid over them for the body, and closes them once all that it began to load is there.
 * @throws DitrunError when a file cannot be read or does not fit the model.
 */
export async function withTransformerSource<T>(
  device: Device,
  { model, weights, loras = [] }: TransformerFiles,
  body: (source: WeightSource) => Promise<T>,
): Promise<T> {
  const laid: LaidLora[] = [];
  try {
    for (const { file, strength } of loras) laid.push({ ...(await openLora(file, model)), strength });
    const base =
      weights.from === "random"
        ? new RandomWeights(device, weights.seed, weights.wide ? model.layers : undefined)
        : new CheckpointWeights(device, await openPart(weights.transformer, "transformer"));
    return await whileOpen(device, base, () => body(laid.length === 0 ? base : new LoraWeights(device, base, laid)));
  } finally {
    for (const { file } of laid) await file.close();
  }
}

/** The parameters that these LoRAs change. @throws DitrunError as openLora does. */
export async function changedBy(loras: readonly LoraFile[], model: WanModel): Promise<ReadonlySet<string>> {
  const changed = new Set<string>();
  for (const { file: path } of loras) {
    const { file, changes } = await openLora(path, model);
    await file.close();
    for (const name of changes.keys()) changed.add(name);
  }
  return changed;
}

/** Loads the decoder half of the VAE. */
export async function loadVaeDecoder(context: Context, weights: WanWeights, kept?: KeptWeights): Promise<WanVae> {
  const wanted = { decoder: true, ...(kept && { kept }) };
  if (weights.from === "random") return WanVae.random(context, weights.seed, wanted);
  const file = await openPart(weights.vae, "VAE");
  return whileOpen(context.device, file, () => WanVae.load(context, file, wanted));
}
