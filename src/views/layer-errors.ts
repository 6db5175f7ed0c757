import { difference } from "./statistics.js";

/** A layer's values, some tokens of it: float32 [tokens, width]. */
export interface LayerTensor {
  /** `layer.003.cond.block.1.ffn`: its place, its text and its name. */
  readonly name: string;
  readonly data: Float32Array;
}

export interface LayerError {
  /** As the published code calls it. */
  readonly layer: string;
  /** `cond`, `uncond`, or `image` of a model without texts. */
  readonly slot: string;
  /** ‖actual - expected‖ / ‖expected‖; null where values are not finite. */
  readonly relL2: number | null;
}

const parts = /^layer\.\d+\.([^.]+)\.(.+)$/;

/** How far two runs are apart after each layer, in the order of computation. @throws Error where they have other layers. */
export function layerErrors(actual: readonly LayerTensor[], expected: readonly LayerTensor[]): LayerError[] {
  const other = new Map(expected.map((tensor) => [tensor.name, tensor.data]));
  return actual.map(({ name, data }) => {
    const [, slot, layer] = parts.exec(name) ?? [];
    const reference = other.get(name);
    if (slot === undefined || layer === undefined || reference?.length !== data.length) {
      throw new Error(`The two runs have no layer ${name} in common.`);
    }
    const { relL2 } = difference(data, reference);
    return { layer, slot, relL2: Number.isFinite(relL2) ? relL2 : null };
  });
}

/** The first layer that is further apart than a limit. */
export function firstApart(errors: readonly LayerError[], limit: number): LayerError | undefined {
  return errors.find(({ relL2 }) => relL2 === null || relL2 > limit);
}
