import { join } from "node:path";
import { z } from "zod";
import { DitrunError } from "../failure.js";
import { checkDocument, findDocument, readDocument } from "../files/documents.js";
import { shownPath } from "../files/shown-path.js";
import { readJsonFile } from "../formats/json-file.js";
import { modelsDirectory } from "../paths.js";
import { isDit, traitsOf } from "./registry.js";
import { type DitModel, layerCountSchema, type Model, modelSchema, sizeSchema, type WanModel } from "./schema.js";
import type { TransformerFiles, WanCheckpoint } from "./wan/checkpoint-layout.js";
import { publishedBoundary } from "./wan/presets.js";
import { type WanConfig, wanConfigSchema } from "./wan/tensors/config-metadata.js";
import { headsOf, textToVideoFacts } from "./wan/tensors/transformer-facts.js";

/**
 * A model by name (configs/models) or from a YAML file.
 * @param others names that the caller understands as well, for messages. @throws DitrunError when it is unknown or impossible.
 */
export async function loadModel(nameOrFile: string, others?: readonly string[]): Promise<Model> {
  const file = await findDocument("model", modelsDirectory, nameOrFile, others);
  return checkModel(await readDocument(file, modelSchema), file);
}

/** The same for commands that run the DiT benchmark. @throws DitrunError for another kind of model too. */
export async function loadDitModel(nameOrFile: string): Promise<DitModel> {
  const model = await loadModel(nameOrFile);
  if (isDit(model)) return model;
  throw new DitrunError(
    "ERR_MODEL_KIND",
    `This command runs the DiT benchmark, but ${model.name} is a ${model.kind} model: choose a dit model.`,
  );
}

export const checkpointConfigSchema = z.object({
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
  const config = checkDocument(file, await readJsonFile(file, shownPath(file)), checkpointConfigSchema);
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

export const diffusersConfigSchema = z.object({
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
 * The model that a Wan checkpoint's transformer configuration describes, or its tensors where there is none. The text encoder's sizes
 * are left to its tensors. Of two transformers, both are looked at.
 * @throws DitrunError when a file is unreadable, or is not of a text-to-video model, or two transformers are of different sizes.
 */
export async function loadWanModel({
  transformer,
  transformer2,
  boundary = publishedBoundary,
}: Pick<WanCheckpoint, "transformer" | "transformer2" | "boundary">): Promise<WanModel> {
  const model = await modelOfOne(transformer);
  if (!transformer2) return model;
  const second = await modelOfOne(transformer2);
  const wrong = (["width", "layers", "heads", "ffn", "channels", "freqDim", "textLength"] as const).find(
    (key) => model[key] !== second[key],
  );
  if (wrong !== undefined)
    throw new DitrunError(
      "ERR_CHECKPOINT_MISMATCH",
      `${transformer.weights} has ${wrong} ${model[wrong]}, but ${transformer2.weights} has ${second[wrong]}: take both transformers of one model.`,
    );
  return { ...model, boundary };
}

async function modelOfOne({ config: file, weights }: TransformerFiles): Promise<WanModel> {
  return file === undefined ? modelOfTensors(weights) : modelOfConfig(file);
}

/** The model of a transformer that is alone: as its own metadata say, else its heads are as wide as those of all published models. */
async function modelOfTensors(path: string): Promise<WanModel> {
  const { width, ffn, layers, inputs, freqDim, config } = await textToVideoFacts(path);
  if (config) return checkWan(modelOfPublished(config), path);
  if (!Number.isInteger(headsOf(width)))
    throw new DitrunError(
      "ERR_MODEL_CONFIG",
      `${path} does not say how many heads it has, and its width ${width} is no multiple of 128, as published models have: put its config.json beside it, or give --model.`,
    );
  const model: WanModel = {
    ...{ kind: "wan", name: "checkpoint", patch: 2, width, ffn, layers, freqDim, channels: inputs },
    ...{ heads: headsOf(width), textLength: 512, epsilon: 1e-6 },
  };
  return checkWan(model, path);
}

function modelOfPublished(config: WanConfig): WanModel {
  return {
    ...{ kind: "wan", name: "checkpoint", patch: 2, width: config.dim, ffn: config.ffn_dim, heads: config.num_heads },
    ...{ layers: config.num_layers, channels: config.in_dim, freqDim: config.freq_dim },
    ...{ textLength: config.text_len, epsilon: config.eps },
  };
}

function checkWan(model: WanModel, file: string): WanModel {
  checkModel(model, file);
  return model;
}

const diffusersMark = z.looseObject({ _class_name: z.literal("WanTransformer3DModel") });
const originalMark = z.looseObject({ dim: z.int(), num_layers: z.int() });

/** Whether a JSON file is the configuration of a Wan transformer, in either layout. */
export async function isWanConfig(file: string): Promise<boolean> {
  const document = await readJsonFile(file).catch(() => undefined);
  return diffusersMark.safeParse(document).success || originalMark.safeParse(document).success;
}

/** @throws DitrunError for what is in neither layout, or is not of a text-to-video model. */
async function modelOfConfig(file: string): Promise<WanModel> {
  const document = await readJsonFile(file, shownPath(file));
  if (!diffusersMark.safeParse(document).success)
    return checkWan(modelOfPublished(checkDocument(file, document, wanConfigSchema)), file);
  const config = checkDocument(file, document, diffusersConfigSchema);
  const model: WanModel = {
    ...{ kind: "wan", name: "checkpoint", patch: 2 },
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
  return checkWan(model, file);
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
  return traitsOf(model).misfit();
}
