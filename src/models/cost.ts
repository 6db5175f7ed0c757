import { traitsOf } from "./registry.js";
import type { LatentSize, Model } from "./schema.js";

/** Tokens of one forward: (imageSize / patch)² of an image; of a video's latent, by default of 81 frames of 832 × 480. */
export function tokenCount(model: Model, latent?: LatentSize): number {
  return traitsOf(model).tokens(latent);
}

/** Weights and biases of the whole model; of Wan, its transformer. */
export function parameterCount(model: Model): number {
  const traits = traitsOf(model);
  const layers = traits.linearLayers().map(({ inputs, outputs }) => (inputs + 1) * outputs);
  return layers.reduce((sum, count) => sum + count, traits.otherParameters());
}

/** What a CPU does in about a minute. */
const MOST_ON_CPU = 1e12;
/** Beyond it even the weights are much for a host's memory: fp32 on a CPU, and with them a text encoder. */
const MOST_PARAMETERS_ON_CPU = 2e8;

/** True for a forward that nobody means to run on a CPU unless they say so, by its products and by its weights. */
export function isForGpu(model: Model, tokens = tokenCount(model)): boolean {
  const parameters = parameterCount(model);
  const operations = 2 * parameters * tokens + 4 * traitsOf(model).blocks * model.width * tokens ** 2;
  return operations > MOST_ON_CPU || parameters > MOST_PARAMETERS_ON_CPU;
}
