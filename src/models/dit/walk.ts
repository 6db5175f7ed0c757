import type { Plan } from "../../plan/schema.js";
import { ditLayerRules } from "../layer-rules.js";
import type { DitModel } from "../schema.js";
import { dtypeBytes } from "../walk/operation.js";
import { type Ground, Walk } from "../walk/walk.js";

/** The DiT's forward on paper, on the rank with the most tokens: as worker/models/dit/dit.ts computes it. */
export function walkDit(model: DitModel, plan: Plan, ground?: Ground): Walk {
  const walk = new Walk(plan, ditLayerRules, ground);
  const { imageSize, channels, patch, width, depth, heads, classes } = model;
  const { cp, tp } = plan.mesh;
  const pixels = channels * patch * patch;
  const allTokens = (imageSize / patch) ** 2;
  const tokens = Math.ceil(allTokens / cp);
  const plainBytes = dtypeBytes[walk.dtype];
  const { memory } = walk;

  const split = plan.embeddings.tensorParallel && tp > 1;
  const shard = plan.norms.sequenceParallel && tp > 1 ? Math.ceil(tokens / tp) : undefined;
  const columns = split ? width / tp : width;
  const image = channels * imageSize * imageSize;
  walk.keep(2 * image + 1);
  const embedding = (path: string, inputs: number, bias: "fp32" | undefined, whole = false) =>
    walk.linear({
      ...{ path, inputs, outputs: width, held: "keep", split: split && !whole ? "column" : "replicated" },
      ...(bias && { bias }),
    });
  const patches = embedding("patch.proj", pixels, "fp32");
  embedding("time.mlp.0", width, undefined, true);
  embedding("time.mlp.2", width, "fp32");
  walk.keep((classes + 1) * columns + tokens * columns + columns);

  /** A norm of this rank's rows, whole on every rank. */
  const norm = (dtype: typeof walk.dtype) => {
    walk.takeMatrix(tokens, width, dtype);
    if (shard === undefined) {
      walk.pass(tokens * width * (4 + dtypeBytes[dtype]));
      return;
    }
    walk.gatherPart("tp", tp, shard * width * dtypeBytes[dtype]);
    walk.pass(shard * width * (4 + dtypeBytes[dtype]));
    walk.work({ kind: "gather", group: "tp", bytes: tokens * width * dtypeBytes[dtype], ranks: tp });
  };

  memory.scope(() => {
    walk.take(tokens * width, "fp32");
    memory.scope(() => {
      walk.take(tokens * pixels, walk.dtype);
      walk.pass(tokens * pixels * (4 + plainBytes));
      if (split) walk.gatherPart("tp", tp, tokens * columns * 4);
      walk.product(tokens, patches, 4);
      walk.pass(tokens * columns * 12);
      if (split) walk.gather("tp", tp, tokens * width * 4);
    });
    const blocks = (path: (index: number) => string, body: (path: string) => void) => {
      if (plan.layers.length === 0) walk.times(depth, () => body(path(0)));
      else for (let index = 0; index < depth; index++) body(path(index));
    };
    blocks(
      (index) => `blocks.${index}`,
      (path) => {
        walk.keep(4 * width);
        const layer = (name: string, inputs: number, outputs: number, bias?: "fp32") =>
          walk.linear({ path: `${path}.${name}`, inputs, outputs, bounded: name === "mlp.0", ...(bias && { bias }) });
        const qkvDtype = walk.attention === "fp16" ? "fp16" : walk.dtype;
        const qkv = layer("attn.qkv", width, 3 * width, qkvDtype === "fp16" ? "fp32" : undefined);
        const proj = layer("attn.proj", width, width, "fp32");
        const up = layer("mlp.0", width, 4 * width);
        const down = layer("mlp.2", 4 * width, width, "fp32");
        const ownHeads = (heads * qkv.outputs) / (3 * width);
        const headDim = width / heads;
        memory.scope(() => {
          norm(qkv.dtype);
          walk.take(tokens * qkv.outputs, qkvDtype);
          walk.product(tokens, qkv, dtypeBytes[qkvDtype]);
          walk.take(tokens * ownHeads * headDim, walk.dtype);
          walk.ringAttention({ tokens, allTokens, heads: ownHeads, headDim }, qkvDtype);
          walk.addToResidual(tokens, proj, walk.dtype, shard);
        });
        memory.scope(() => {
          const bounded = down.dtype === "e4m3" && shard === undefined;
          if (bounded) walk.take(tokens, "fp32");
          norm(up.dtype);
          const inside = bounded ? "e4m3" : walk.dtype;
          walk.take(tokens * up.outputs, inside);
          walk.product(tokens, up, dtypeBytes[inside], true);
          walk.addToResidual(tokens, down, inside, shard);
        });
      },
    );
    walk.keep(2 * width);
    const headSplit = plan.embeddings.tensorParallel && tp > 1 ? "column" : "replicated";
    const head = walk.linear({
      ...{ path: "head", inputs: width, outputs: pixels, bias: "fp32", held: "keep", split: headSplit },
    });
    norm(head.dtype);
    walk.gatherPart("ring", cp, tokens * pixels * 4);
    if (headSplit === "column") walk.gatherPart("tp", tp, tokens * head.outputs * 4);
    walk.product(tokens, head, 4);
    if (headSplit === "column") walk.gather("tp", tp, tokens * pixels * 4);
    walk.gather("ring", cp, allTokens * pixels * 4);
    walk.pass(2 * image * 4);
  });
  return walk;
}
