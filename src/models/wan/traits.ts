import { DitrunError } from "../../failure.js";
import { meshSize, type Plan } from "../../plan/schema.js";
import { wanLayerRules } from "../layer-rules.js";
import { type WanModel, wanTokens } from "../schema.js";
import type { Traits } from "../traits.js";
import { TEXT_WIDTH, walkWan } from "./walk.js";
import { walkVideo } from "./walk-video.js";

/** Of 81 frames of 832 × 480. */
const usualLatent = { frames: 21, height: 60, width: 104 };

/** Wan 2.1's transformer; its text encoder and VAE are no part of what plans split and costs count. */
export function wanTraits(model: WanModel): Traits {
  const { name, width: d, ffn, heads, layers, channels, patch, freqDim, textEncoder } = model;
  return {
    makes: "forwards",
    blocks: layers,
    layerRules: wanLayerRules,
    // The VAE's attention.
    gathersOverMesh: true,
    tokens: (latent = usualLatent) => wanTokens(model, latent),
    linearLayers: () => {
      const inBlock = [
        ...["self_attn", "cross_attn"].flatMap((attention) =>
          ["q", "k", "v", "o"].map((part) => ({ path: `${attention}.${part}`, inputs: d, outputs: d })),
        ),
        { path: "ffn.0", inputs: d, outputs: ffn },
        { path: "ffn.2", inputs: ffn, outputs: d },
      ];
      return Array.from({ length: layers }, (_, index) =>
        inBlock.map((layer) => ({ ...layer, path: `blocks.${index}.${layer.path}` })),
      ).flat();
    },
    otherParameters: () => {
      const linear = (inputs: number, outputs: number) => (inputs + 1) * outputs;
      const pixels = channels * patch * patch;
      const text = linear(textEncoder?.width ?? TEXT_WIDTH, d) + linear(d, d);
      const time = linear(freqDim, d) + linear(d, d) + linear(d, 6 * d);
      // Each block: modulation, weights of four RMSNorms, weight and bias of norm3. The head: modulation and linear.
      return linear(pixels, d) + text + time + layers * (6 + 4 + 2) * d + 2 * d + linear(d, pixels);
    },
    misfit: () => {
      const headDim = d / heads;
      if (headDim >= 6 && headDim % 2 === 0) return undefined;
      return `rotary positions turn pairs of a head's columns in three directions, but heads of ${headDim} are not even and at least 6; change width or heads`;
    },
    onPaper: (plan, latent = usualLatent, ground) => {
      const { step, decode, bytes, leastBytes } = walkVideo(model, plan, latent, ground);
      const forward = walkWan(model, plan, latent, ground);
      return {
        forward: forward.operations,
        forwardBytes: forward.memory.bytes,
        video: { step: step.operations, decode: decode.operations },
        ...{ bytes, leastBytes },
      };
    },
    checkPlan: (plan) => {
      const { mesh, guidance } = plan;
      if (mesh.cfg > 2) {
        throw new DitrunError(
          "ERR_PLAN_MESH",
          `The model ${name} makes two forwards per step (prompt and negative prompt), so cfg must be 1 or 2, but it is ${mesh.cfg}.`,
        );
      }
      checkWanParts(plan, name);
      if (guidance.together && meshSize(mesh) > 1) {
        throw new DitrunError(
          "ERR_PLAN_UNSUPPORTED",
          `The plan sets guidance.together, which needs one worker that does both forwards alone, but there are ${meshSize(mesh)}: leave it out, or use one worker.`,
        );
      }
    },
  };
}

/** Refuses what a plan may ask of the DiT but Wan does not have. @throws DitrunError */
export function checkWanParts({ norms, embeddings, attention }: Plan, model: string): void {
  if (attention.dtype === "fp16") {
    throw new DitrunError(
      "ERR_PLAN_PRECISION",
      `The plan has attention.dtype fp16, which only the DiT has; for ${model} leave it out, or make it e4m3.`,
    );
  }
  for (const [key, used] of [
    ["norms.sequenceParallel", norms.sequenceParallel],
    ["embeddings.tensorParallel", embeddings.tensorParallel],
  ] as const) {
    if (used)
      throw new DitrunError(
        "ERR_PLAN_UNSUPPORTED",
        `The plan sets ${key}, which ${model} does not have: set it to false.`,
      );
  }
}
