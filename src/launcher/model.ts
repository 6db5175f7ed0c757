import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { DitrunError, messageOf } from "../protocol/failure.js";
import { type DitModel, type Model, modelSchema } from "../protocol/model.js";
import { checkDocument, findDocument, readDocument } from "./documents.js";
import { modelsDirectory } from "./paths.js";

/** A model by name (configs/models) or from a YAML file. @throws DitrunError when it is unknown or impossible. */
export async function loadModel(nameOrFile: string): Promise<Model> {
  const file = await findDocument("model", modelsDirectory, nameOrFile);
  return checkModel(await readDocument(file, modelSchema), file);
}

const checkpointConfigSchema = z.object({
  img_size: z.int().min(1),
  patch_size: z.int().min(1),
  in_c: z.int().min(1),
  d: z.int().min(1),
  depth: z.int().min(1),
  heads: z.int().min(1),
  n_cls: z.int().min(1),
});

/** The model that the config.json of a folder of weights describes. @throws DitrunError when it is unreadable or wrong. */
export async function loadCheckpointModel(directory: string): Promise<Model> {
  const file = join(directory, "config.json");
  let document: unknown;
  try {
    document = JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    throw new DitrunError(`${file} could not be read as JSON: ${messageOf(error)}.`, undefined, { cause: error });
  }
  const config = checkDocument(file, document, checkpointConfigSchema);
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
  return checkModel(model, file);
}

function checkModel(model: Model, file: string): Model {
  if (model.imageSize % model.patch !== 0) {
    throw new DitrunError(
      `${file}: an image of ${model.imageSize} pixels cannot be cut into patches of ${model.patch}; make imageSize a multiple of patch.`,
    );
  }
  if (model.width % model.heads !== 0) {
    throw new DitrunError(
      `${file}: a width of ${model.width} cannot be shared by ${model.heads} heads; make width a multiple of heads.`,
    );
  }
  return model;
}

/** Tokens of one image: (imageSize / patch)². */
export function tokenCount(model: Model): number {
  return (model.imageSize / model.patch) ** 2;
}

/** A layer that a plan may split: its module path, named as in the model's checkpoints, inputs and outputs. */
export interface LinearLayer {
  path: string;
  inputs: number;
  outputs: number;
}

/** The linear layers that a plan's rules may match. */
export function linearLayers(model: Model): LinearLayer[] {
  const { width: d, depth, channels, patch } = model;
  const blocks = Array.from({ length: depth }, (_, index) => [
    { path: `blocks.${index}.attn.qkv`, inputs: d, outputs: 3 * d },
    { path: `blocks.${index}.attn.proj`, inputs: d, outputs: d },
    { path: `blocks.${index}.mlp.0`, inputs: d, outputs: 4 * d },
    { path: `blocks.${index}.mlp.2`, inputs: 4 * d, outputs: d },
  ]);
  return [...blocks.flat(), { path: "head", inputs: d, outputs: channels * patch * patch }];
}

/** Weights and biases outside the linear layers of linearLayers: embeddings and norms. */
export function otherParameters(model: Model): number {
  const { width: d, depth, channels, patch, classes } = model;
  const patchEmbedding = (channels * patch * patch + 1) * d;
  const timeEmbedding = 2 * (d + 1) * d;
  const norms = (2 * depth + 1) * 2 * d;
  return patchEmbedding + timeEmbedding + (classes + 1) * d + norms;
}

/** Weights and biases of the whole model. */
export function parameterCount(model: Model): number {
  const layers = linearLayers(model).map(({ inputs, outputs }) => (inputs + 1) * outputs);
  return layers.reduce((sum, count) => sum + count, otherParameters(model));
}
