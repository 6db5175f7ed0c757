import { DitrunError } from "../../failure.js";
import { ditLayerRules } from "../layer-rules.js";
import type { DitModel } from "../schema.js";
import type { Traits } from "../traits.js";
import { walkDit } from "./walk.js";

/** The DiT benchmark: one image a forward, (imageSize / patch)² tokens. */
export function ditTraits(model: DitModel): Traits {
  const { name, imageSize, channels, patch, width: d, depth, classes } = model;
  const pixels = channels * patch * patch;
  return {
    makes: "images",
    blocks: depth,
    layerRules: ditLayerRules,
    gathersOverMesh: false,
    tokens: () => (imageSize / patch) ** 2,
    linearLayers: () => {
      const blocks = Array.from({ length: depth }, (_, index) => [
        { path: `blocks.${index}.attn.qkv`, inputs: d, outputs: 3 * d },
        { path: `blocks.${index}.attn.proj`, inputs: d, outputs: d },
        { path: `blocks.${index}.mlp.0`, inputs: d, outputs: 4 * d },
        { path: `blocks.${index}.mlp.2`, inputs: 4 * d, outputs: d },
      ]);
      return [...blocks.flat(), { path: "head", inputs: d, outputs: pixels }];
    },
    otherParameters: () => {
      const norms = (2 * depth + 1) * 2 * d;
      // Patch embedding, the time step's two layers, the table of classes with one for none.
      return (pixels + 1) * d + 2 * (d + 1) * d + (classes + 1) * d + norms;
    },
    misfit: () => {
      if (imageSize % patch !== 0) {
        return `an image of ${imageSize} pixels cannot be cut into patches of ${patch}; make imageSize a multiple of patch`;
      }
      if (d % 4 !== 0) {
        return `positions are sines and cosines in two directions, but a width of ${d} is not a multiple of 4; make it one`;
      }
      return undefined;
    },
    onPaper: (plan, _latent, ground) => {
      const { operations, memory } = walkDit(model, plan, ground);
      return { forward: operations, forwardBytes: memory.bytes, bytes: memory.bytes, leastBytes: memory.bytes };
    },
    checkPlan: ({ mesh, vae, guidance }) => {
      if (mesh.cfg !== 1) {
        throw new DitrunError(
          "ERR_PLAN_MESH",
          `The model ${name} makes one forward per image, so cfg must be 1, but it is ${mesh.cfg}.`,
        );
      }
      if (vae.dtype !== undefined) {
        throw new DitrunError(
          "ERR_PLAN_UNSUPPORTED",
          `The plan sets vae.dtype ${vae.dtype}, but ${name} has no VAE: leave it out.`,
        );
      }
      if (guidance.together) {
        throw new DitrunError(
          "ERR_PLAN_UNSUPPORTED",
          `The plan sets guidance.together, but ${name} has no guidance: leave it out.`,
        );
      }
    },
  };
}
