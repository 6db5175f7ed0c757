import { join } from "node:path";
import { z } from "zod";
import { DitrunError } from "../failure.js";
import { checkDocument, findDocument, readDocument, readJson } from "../files/documents.js";
import { modelsDirectory } from "../paths.js";
import {
  type DitModel,
  type LatentSize,
  layerCountSchema,
  type Model,
  modelSchema,
  sizeSchema,
  type WanModel,
  wanTokens,
} from "./schema.js";
import type { WanCheckpoint } from "./wan/checkpoint-layout.js";

/** A model by name (configs/models) or from a YAML file. @throws DitrunError when it is unknown or impossible. */
export async function loadModel(nameOrFile: string): Promise<Model> {
  const file = await findDocument("model", modelsDirectory, nameOrFile);
  return checkModel(await readDocument(file, modelSchema), file);
}

/** The same for commands that run the DiT benchmark. @throws DitrunError for another kind of model too. */
export async function loadDitModel(nameOrFile: string): Promise<DitModel> {
  const model = await loadModel(nameOrFile);
  if (model.kind === "dit") return model;
  throw new DitrunError(
    "ERR_MODEL_KIND",
    `This command runs the DiT benchmark, but ${model.name} is a ${model.kind} model: choose a dit model.`,
  );
}

const checkpointConfigSchema = z.object({
  img_size: sizeSchema,
  patch_size: sizeSchema,
  in_c: sizeSchema,
  d: sizeSchema,
  depth: layerCountSchema,
  heads: layerCountSchema,
  n_cls: sizeSchema,
});

/** The model that the config.json of a folder of weights describes. @throws DitrunError when it is unreadable or wrong. */
export async function loadCheckpointModel(directory: string): Promise<DitModel> {
  const file = join(directory, "config.json");
  const config = checkDocument(file, await readJson(file), checkpointConfigSchema);
  const model: DitModel = {
    kind: "dit",
    name: "checkpoint",
    imageSize: config.img_size,
    channels: config.in_c,
    patch: config.patch_size,
    width: config.d,
    depth: config.depth,
    heads: config.heads,
    classes: config.n_cls,
  };
  checkModel(model, file);
  return model;
}

const wanConfigSchema = z.object({
  model_type: z.literal("t2v"),
  text_len: sizeSchema,
  in_dim: sizeSchema,
  dim: sizeSchema,
  ffn_dim: sizeSchema,
  freq_dim: sizeSchema.multipleOf(2),
  num_heads: layerCountSchema,
  num_layers: layerCountSchema,
  eps: z.number().positive(),
});

const diffusersConfigSchema = z.object({
  _class_name: z.literal("WanTransformer3DModel"),
  image_dim: z.null().optional(),
  patch_size: z.tuple([z.literal(1), z.literal(2), z.literal(2)]),
  in_channels: sizeSchema,
  num_attention_heads: layerCountSchema,
  attention_head_dim: sizeSchema,
  ffn_dim: sizeSchema,
  freq_dim: sizeSchema.multipleOf(2),
  num_layers: layerCountSchema,
  eps: z.number().positive(),
});

/**
 * The model that a Wan checkpoint's transformer configuration describes. The text encoder's sizes are left to its tensors.
 * @throws DitrunError when the file is unreadable, or is not of a text-to-video model.
 */
export async function loadWanModel({ layout, transformer }: WanCheckpoint): Promise<WanModel> {
  const file = transformer.config;
  const document = await readJson(file);
  const fixed = { kind: "wan", name: "checkpoint", patch: 2 } as const;
  let model: WanModel;
  if (layout === "original") {
    const config = checkDocument(file, document, wanConfigSchema);
    model = {
      ...fixed,
      width: config.dim,
      ffn: config.ffn_dim,
      heads: config.num_heads,
      layers: config.num_layers,
      channels: config.in_dim,
      freqDim: config.freq_dim,
      textLength: config.text_len,
      epsilon: config.eps,
    };
  } else {
    const config = checkDocument(file, document, diffusersConfigSchema);
    model = {
      ...fixed,
      width: config.num_attention_heads * config.attention_head_dim,
      ffn: config.ffn_dim,
      heads: config.num_attention_heads,
      layers: config.num_layers,
      channels: config.in_channels,
      freqDim: config.freq_dim,
      // Not in this layout's configuration: the pipeline pads every prompt to so many tokens.
      textLength: 512,
      epsilon: config.eps,
    };
  }
  checkModel(model, file);
  return model;
}

function checkModel(model: Model, file: string): Model {
  const misfit = misfitOf(model);
  if (misfit !== undefined) throw new DitrunError("ERR_MODEL_CONFIG", `${file}: ${misfit}.`);
  return model;
}

/** Of the attention kernels that take any head dimension, on a GPU. */
const MOST_HEAD_DIM = 256;

/** What keeps any kernel from computing the model, and what would mend it. */
function misfitOf(model: Model): string | undefined {
  const { width, heads } = model;
  const headDim = width / heads;
  if (!Number.isInteger(headDim)) {
    return `a width of ${width} cannot be shared by ${heads} heads; make width a multiple of heads`;
  }
  if (headDim > MOST_HEAD_DIM) {
    return `a width of ${width} with ${heads} heads makes heads of ${headDim}, and attention takes ${MOST_HEAD_DIM} at most; choose more heads`;
  }
  if (model.kind === "wan") {
    if (headDim >= 6 && headDim % 2 === 0) return undefined;
    return `rotary positions turn pairs of a head's columns in three directions, but heads of ${headDim} are not even and at least 6; change width or heads`;
  }
  const { imageSize, patch } = model;
  if (imageSize % patch !== 0) {
    return `an image of ${imageSize} pixels cannot be cut into patches of ${patch}; make imageSize a multiple of patch`;
  }
  if (width % 4 !== 0) {
    return `positions are sines and cosines in two directions, but a width of ${width} is not a multiple of 4; make it one`;
  }
  return undefined;
}

/** Tokens of one forward: (imageSize / patch)² of an image; of a video's latent, by default of 81 frames of 832 × 480. */
export function tokenCount(model: Model, latent: LatentSize = { frames: 21, height: 60, width: 104 }): number {
  return model.kind === "dit" ? (model.imageSize / model.patch) ** 2 : wanTokens(model, latent);
}

/** A layer that a plan may split: its module path, named as in the model's checkpoints, inputs and outputs. */
export interface LinearLayer {
  path: string;
  inputs: number;
  outputs: number;
}

/** The linear layers that a plan's rules may match. */
export function linearLayers(model: Model): LinearLayer[] {
  const { width: d } = model;
  if (model.kind === "wan") {
    const inBlock = [
      ...["self_attn", "cross_attn"].flatMap((attention) =>
        ["q", "k", "v", "o"].map((name) => ({ path: `${attention}.${name}`, inputs: d, outputs: d })),
      ),
      { path: "ffn.0", inputs: d, outputs: model.ffn },
      { path: "ffn.2", inputs: model.ffn, outputs: d },
    ];
    return Array.from({ length: model.layers }, (_, index) =>
      inBlock.map((layer) => ({ ...layer, path: `blocks.${index}.${layer.path}` })),
    ).flat();
  }
  const { depth, channels, patch } = model;
  const blocks = Array.from({ length: depth }, (_, index) => [
    { path: `blocks.${index}.attn.qkv`, inputs: d, outputs: 3 * d },
    { path: `blocks.${index}.attn.proj`, inputs: d, outputs: d },
    { path: `blocks.${index}.mlp.0`, inputs: d, outputs: 4 * d },
    { path: `blocks.${index}.mlp.2`, inputs: 4 * d, outputs: d },
  ]);
  return [...blocks.flat(), { path: "head", inputs: d, outputs: channels * patch * patch }];
}

/** Width of the published text encoder, where the model leaves it to the checkpoint. */
const TEXT_WIDTH = 4096;

/** Weights and biases outside the linear layers of linearLayers: embeddings, norms, and for Wan the head and modulation. */
export function otherParameters(model: Model): number {
  const { width: d, channels, patch } = model;
  const linear = (inputs: number, outputs: number) => (inputs + 1) * outputs;
  const pixels = channels * patch * patch;
  if (model.kind === "wan") {
    const { layers, freqDim, textEncoder } = model;
    const text = linear(textEncoder?.width ?? TEXT_WIDTH, d) + linear(d, d);
    const time = linear(freqDim, d) + linear(d, d) + linear(d, 6 * d);
    // Each block: modulation, weights of four RMSNorms, weight and bias of norm3. The head: modulation and linear.
    return linear(pixels, d) + text + time + layers * (6 + 4 + 2) * d + 2 * d + linear(d, pixels);
  }
  const norms = (2 * model.depth + 1) * 2 * d;
  return linear(pixels, d) + 2 * linear(d, d) + (model.classes + 1) * d + norms;
}

/** Weights and biases of the whole model; of Wan, its transformer. */
export function parameterCount(model: Model): number {
  const layers = linearLayers(model).map(({ inputs, outputs }) => (inputs + 1) * outputs);
  return layers.reduce((sum, count) => sum + count, otherParameters(model));
}

/** What a CPU does in about a minute. */
const MOST_ON_CPU = 1e12;
/** Beyond it even the weights are much for a host's memory: fp32 on a CPU, and with them a text encoder. */
const MOST_PARAMETERS_ON_CPU = 2e8;

/** True for a forward that nobody means to run on a CPU unless they say so, by its products and by its weights. */
export function isForGpu(model: Model, tokens = tokenCount(model)): boolean {
  const parameters = parameterCount(model);
  const blocks = model.kind === "dit" ? model.depth : model.layers;
  const operations = 2 * parameters * tokens + 4 * blocks * model.width * tokens ** 2;
  return operations > MOST_ON_CPU || parameters > MOST_PARAMETERS_ON_CPU;
}
