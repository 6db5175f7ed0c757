import { meshSize, type Plan } from "../../plan/schema.js";
import { textEncoderLayerRules, wanLayerRules } from "../layer-rules.js";
import type { LatentSize, WanModel } from "../schema.js";
import { type Ground, Walk } from "../walk/walk.js";
import { TEXT_WIDTH, walkTransformer } from "./walk.js";
import { walkDecode } from "./walk-vae.js";

/** Up to so many tokens both forwards run at the same time (worker/models/wan/guidance.ts). */
const FEW_TOKENS = 8192;
/** The published encoder, where the model leaves its sizes to the checkpoint. */
const publishedEncoder = { vocabulary: 256_384, width: TEXT_WIDTH, ffn: 10_240, heads: 64, headDim: 64, layers: 24 };

/** What a whole video takes of a rank. */
export interface VideoOnPaper {
  /** One step: a forward, or two in turn; and the exchange of predictions. */
  readonly step: Walk;
  readonly decode: Walk;
  /** All models at once, in bytes. */
  readonly bytes: number;
  /** One model at a time: the text encoder goes before the others come. */
  readonly leastBytes: number;
}

/** A video of `ditrun wan generate`, frames as bytes, with guidance: as worker/tasks/wan-open.ts makes it ready. */
export function walkVideo(model: WanModel, plan: Plan, size: LatentSize, ground?: Ground): VideoOnPaper {
  const latent = model.channels * size.frames * size.height * size.width;
  const step = new Walk(plan, wanLayerRules, ground);
  const transformer = walkTransformer(step, model, size);
  // The sampler's state of six latents, both predictions, the velocity.
  step.keep(9 * latent);
  const slots = plan.mesh.cfg > 1 ? 1 : 2;
  for (let slot = 0; slot < slots; slot++) transformer.embedText();
  const tokens = (size.frames * size.height * size.width) / model.patch ** 2;
  const together = meshSize(plan.mesh) === 1 && (plan.guidance.together ?? tokens <= FEW_TOKENS);
  if (together) step.twice(transformer.forward);
  else for (let slot = 0; slot < slots; slot++) transformer.forward();
  if (slots === 1) {
    step.gatherPart("cfg", plan.mesh.cfg, 4 * latent);
    step.work({ kind: "gather", group: "cfg", bytes: 8 * latent, ranks: plan.mesh.cfg });
  }
  // Combining predictions, and the solver's three sums.
  step.pass(4 * latent * 16);
  const decode = new Walk(plan, wanLayerRules, ground);
  walkDecode(decode, size, 1);
  const encoder = walkEncoder(model, plan, ground);
  const texts = 8 * model.textLength * (model.textEncoder?.width ?? TEXT_WIDTH);
  // Both are of one program: what a forward and the decode take in turn is one arena.
  const video = step.memory.bytes + decode.memory.bytes - Math.min(step.memory.arena, decode.memory.arena);
  return { step, decode, bytes: video + encoder + texts, leastBytes: texts + Math.max(video, encoder) };
}

/** Bytes of the text encoder and its forward (worker/models/wan/text-encoder.ts). */
function walkEncoder(model: WanModel, plan: Plan, ground?: Ground): number {
  const walk = new Walk({ ...plan, layers: [], linear: {} }, textEncoderLayerRules, ground);
  const { vocabulary, width, ffn, heads, headDim, layers } = model.textEncoder ?? publishedEncoder;
  const { textLength } = model;
  const { tp } = plan.mesh;
  const inner = heads * headDim;
  walk.keep(vocabulary * width, walk.dtype);
  walk.keep(2 * width + textLength * width);
  const { memory } = walk;
  memory.scope(() => {
    walk.take(textLength * width, "fp32");
    walk.times(layers, () => {
      const layer = (path: string, inputs: number, outputs: number) =>
        walk.linear({ path: `blocks.0.${path}`, inputs, outputs, bias: null, held: "keep" });
      const [qkv, o] = [layer("attn.q", width, 3 * inner), layer("attn.o", inner, width)];
      const [gate, up] = [layer("ffn.gate.0", width, ffn), layer("ffn.fc1", width, ffn)];
      const down = layer("ffn.fc2", ffn, width);
      walk.keep(2 * width + (heads / tp) * (2 * textLength - 1));
      memory.scope(() => {
        walk.take(textLength * (width + qkv.outputs + qkv.outputs / 3), walk.dtype);
        walk.addToResidual(textLength, o, walk.dtype);
      });
      memory.scope(() => {
        walk.take(textLength * (width + gate.outputs + up.outputs), walk.dtype);
        walk.addToResidual(textLength, down, walk.dtype);
      });
    });
  });
  return memory.bytes;
}
