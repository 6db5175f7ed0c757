import type { Plan } from "../../plan/schema.js";
import { wanLayerRules } from "../layer-rules.js";
import { type LatentSize, type WanModel, wanTokens } from "../schema.js";
import { dtypeBytes } from "../walk/operation.js";
import { type Ground, Walk } from "../walk/walk.js";

/** Width of the published text encoder, where the model leaves it to the checkpoint. */
export const TEXT_WIDTH = 4096;

/** One of Wan's transformers on paper, loaded on the rank with the most tokens; forwards are walked as they are asked for. */
export interface WalkedTransformer {
  /** Keys and values of a text, which stay. */
  embedText(): void;
  forward(): void;
}

/** The transformer's forward as `ditrun wan profile` runs it: with one text, latent and output. */
export function walkWan(model: WanModel, plan: Plan, size: LatentSize, ground?: Ground): Walk {
  const walk = new Walk(plan, wanLayerRules, ground);
  const transformer = walkTransformer(walk, model, size);
  const latent = model.channels * size.frames * size.height * size.width;
  walk.keep(2 * latent + model.textLength * (model.textEncoder?.width ?? TEXT_WIDTH));
  transformer.embedText();
  transformer.forward();
  return walk;
}

/** As worker/models/wan/transformer.ts and block.ts load and compute it. */
export function walkTransformer(walk: Walk, model: WanModel, size: LatentSize): WalkedTransformer {
  const { memory, plan } = walk;
  const { width, ffn, heads, layers, channels, patch, freqDim, textLength } = model;
  const textWidth = model.textEncoder?.width ?? TEXT_WIDTH;
  const { cp } = plan.mesh;
  const pixels = channels * patch * patch;
  const allTokens = wanTokens(model, size);
  const tokens = Math.ceil(allTokens / cp);
  const headDim = width / heads;
  const plainBytes = dtypeBytes[walk.dtype];

  const whole = { split: "replicated" } as const;
  const patches = walk.linear({ path: "patch", inputs: pixels, outputs: width, bias: "fp32", held: "keep", ...whole });
  const text = [textWidth, width].map((inputs) =>
    walk.linear({ path: "text", inputs, outputs: width, held: "keep", ...whole }),
  );
  walk.keep(layers * 6 * width + 2 * width + freqDim);
  const time = [
    { inputs: freqDim, outputs: width },
    { inputs: width, outputs: width },
    { inputs: width, outputs: 6 * width },
  ].map((layer) => walk.linear({ path: "time", ...layer, held: "fp32", ...whole }));
  const head = walk.linear({ path: "head.head", inputs: width, outputs: pixels, held: "fp32", ...whole });
  walk.keep(tokens * headDim + textLength * textWidth);

  const load = (path: string) => {
    const layer = (name: string, inputs: number, outputs: number, bias?: "fp32") =>
      walk.linear({ path: `${path}.${name}`, inputs, outputs, bounded: name === "ffn.0", ...(bias && { bias }) });
    const loaded = {
      qkv: layer("self_attn.q", width, 3 * width),
      o: layer("self_attn.o", width, width),
      q: layer("cross_attn.q", width, width),
      kv: layer("cross_attn.k", width, 2 * width),
      crossO: layer("cross_attn.o", width, width, "fp32"),
      up: layer("ffn.0", width, ffn),
      down: layer("ffn.2", ffn, width),
    };
    // Of both attentions a gain for q and one for k, and norm3.
    walk.keep((2 * loaded.qkv.outputs) / 3 + loaded.q.outputs + loaded.kv.outputs / 2 + 2 * width);
    return loaded;
  };
  type Block = ReturnType<typeof load>;
  const same = plan.layers.length === 0;
  const blocks: Block[] = [];
  if (same) walk.times(layers, () => blocks.push(load("blocks.0")));
  else for (let index = 0; index < layers; index++) blocks.push(load(`blocks.${index}`));

  const each = (body: (block: Block) => void) => {
    for (const block of blocks) walk.times(same ? layers : 1, () => body(block));
  };
  const norm = (rows: number, dtype: Block["qkv"]["dtype"]) => {
    walk.takeMatrix(rows, width, dtype);
    walk.pass(rows * width * (4 + dtypeBytes[dtype]));
  };
  /** RMSNorm over the whole width of tensors [tokens, columns], which under tp needs a sum over the group. */
  const wideNorm = (count: number, columns: number, written: number) => {
    memory.scope(() => {
      if (columns < width) {
        for (let each = 0; each < count; each++) walk.pass(tokens * columns * plainBytes);
        walk.sumOfRows(count * tokens);
      }
      walk.pass(count * tokens * columns * plainBytes + tokens * columns * written);
    });
  };

  const block = ({ qkv, o, q, crossO, up, down }: Block) => {
    const columns = qkv.outputs / 3;
    const ownHeads = columns / headDim;
    memory.scope(() => {
      norm(tokens, qkv.dtype);
      walk.take(tokens * qkv.outputs, walk.dtype);
      walk.product(tokens, qkv, plainBytes);
      const queries = walk.attention === "e4m3" ? "e4m3" : walk.dtype;
      if (queries === "e4m3") walk.takeMatrix(tokens, columns, "e4m3", tokens * ownHeads);
      wideNorm(2, columns, dtypeBytes[queries] + plainBytes);
      const out = walk.attentionOutput(tokens, ownHeads, headDim, queries, o.dtype);
      walk.ringAttention({ tokens, allTokens, heads: ownHeads, headDim }, queries);
      walk.addToResidual(tokens, o, out);
    });
    memory.scope(() => {
      norm(tokens, q.dtype);
      walk.take(tokens * q.outputs, walk.dtype);
      walk.product(tokens, q, plainBytes);
      wideNorm(1, q.outputs, plainBytes);
      const out = walk.attentionOutput(tokens, q.outputs / headDim, headDim, walk.dtype, crossO.dtype);
      walk.work({
        ...{ kind: "attention", heads: q.outputs / headDim, queries: tokens, keys: textLength, headDim },
        ...{ dtype: walk.dtype, messageBytes: 0, ranks: 1 },
      });
      walk.addToResidual(tokens, crossO, out);
    });
    memory.scope(() => {
      const bounded = down.dtype === "e4m3";
      if (bounded) walk.take(tokens, "fp32");
      norm(tokens, up.dtype);
      const inside = bounded ? "e4m3" : walk.dtype;
      walk.take(tokens * up.outputs, inside);
      walk.product(tokens, up, dtypeBytes[inside], true);
      walk.addToResidual(tokens, down, inside);
    });
  };

  return {
    embedText: () => {
      each(({ kv }) => walk.keep(textLength * kv.outputs, walk.dtype));
      memory.scope(() => {
        walk.take(textLength * textWidth, walk.dtype);
        for (const layer of text) walk.take(textLength * layer.outputs, walk.dtype);
      });
    },
    forward: () =>
      memory.scope(() => {
        walk.take(tokens * width, "fp32");
        memory.scope(() => {
          walk.take(tokens * pixels, walk.dtype);
          walk.pass(tokens * pixels * (4 + plainBytes));
          walk.product(tokens, patches, 4);
        });
        walk.take(layers * 6 * width, "fp32");
        walk.take(2 * width, "fp32");
        for (const layer of time) walk.product(1, layer, 4);
        walk.pass(layers * 6 * width * 8);
        each(block);
        walk.gatherPart("ring", cp, tokens * pixels * 4);
        walk.take(tokens * width, "fp32");
        walk.pass(tokens * width * 8);
        walk.product(tokens, head, 4);
        walk.gather("ring", cp, allTokens * pixels * 4);
        walk.pass(2 * channels * size.frames * size.height * size.width * 4);
      }),
  };
}
