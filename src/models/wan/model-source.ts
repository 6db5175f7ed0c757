import { resolve } from "node:path";
import { DitrunError } from "../../failure.js";
import type { Progress } from "../../hub/download.js";
import type { Environment } from "../../hub/hub-cache.js";
import type { WanWeights } from "../../protocol/job.js";
import type { Seed } from "../../protocol/seed.js";
import { loadWanModel } from "../load.js";
import { isWan } from "../registry.js";
import type { WanModel } from "../schema.js";
import type { WanCheckpoint } from "./checkpoint-layout.js";
import { assemble, type NamedFiles } from "./components.js";
import { type FoundModel, repositoryOf, tellingSizes } from "./find-model.js";
import { locateCheckpoint, openCheckpoint, openFolder } from "./locate.js";
import { textToVideoFacts } from "./tensors/transformer-facts.js";

/** Where a checkpoint is to be looked for. */
export interface TransformerRequest {
  readonly found: FoundModel;
  /** --ckpt-dir: another folder than the one that is the model, or a repository in the cache. */
  readonly directory: string | undefined;
  /** --transformer, --text-encoder, --vae. */
  readonly files?: NamedFiles | undefined;
  readonly download: boolean;
  /** --verify: hash every file of the checkpoint. */
  readonly verify: boolean;
  /** Where the cache and the hub are: HF_HOME and its like. */
  readonly environment: Environment;
  readonly onProgress: (progress: Progress) => void;
  /** Called with a sentence for people. */
  readonly onNote: (sentence: string) => void;
}

export interface SourceRequest extends TransformerRequest {
  readonly weights: "checkpoint" | "random";
  readonly seed: Seed;
}

export interface ModelSource {
  readonly model: WanModel;
  readonly weights: WanWeights;
  /** Of readTokenizer; absent where weights are random. */
  readonly tokenizer?: string;
  /** For people: where the weights come from. */
  readonly description: string;
}

/**
 * The model to run and where its weights are; a checkpoint is looked up, or downloaded if that was asked for.
 * @throws DitrunError when there is none, when something of it is missing, or when it is of another model than the one named.
 */
export async function modelSource(request: SourceRequest): Promise<ModelSource> {
  const { weights, seed, directory } = request;
  const { preset, directory: named } = request.found;
  const config = requireWan(request.found);
  if (weights === "random") {
    for (const [option, given] of [
      ["the folder of --model, or name the model", named !== undefined],
      ["--ckpt-dir", directory !== undefined],
      ["--download", request.download],
      ["--verify", request.verify],
      ...Object.entries(request.files ?? {}).map(([part, file]) => [partOption(part), file !== undefined] as const),
    ] as const) {
      if (given)
        throw new DitrunError("ERR_OPTION_CONFLICT", `--weights random reads no checkpoint: leave out ${option}.`);
    }
    return { model: config, weights: { from: "random", seed }, description: `random weights of seed ${seed}` };
  }
  requireOne(request);
  const { checkpoint, description } = await findCheckpoint(request);
  const { transformer, transformer2, textEncoder, vae, tokenizer } = checkpoint;
  return {
    model: await modelOfCheckpoint(checkpoint, request.found),
    weights: {
      ...{ from: "checkpoint", transformer: transformer.weights },
      ...(transformer2 && { transformer2: transformer2.weights }),
      ...{ textEncoder: textEncoder.weights, vae: vae.weights },
    },
    tokenizer,
    description:
      preset?.bundled === checkpoint.directory && description === undefined
        ? "the small checkpoint that comes with ditrun"
        : (description ?? `${checkpoint.directory}, ${checkpoint.layout} layout`),
  };
}

const partOption = (part: string) =>
  part === "second transformer" ? "--transformer-2" : `--${part.toLowerCase().replace(" ", "-")}`;

/** @throws DitrunError for another family's model. */
function requireWan({ name, model }: FoundModel): WanModel {
  if (isWan(model)) return model;
  throw new DitrunError(
    "ERR_MODEL_KIND",
    `This command runs Wan, but ${name} is a ${model.kind} model: choose 1.4B, 14B, 2.2-T2V-A14B or tiny.`,
  );
}

/** @throws DitrunError where two options name a checkpoint. */
function requireOne({ found: { directory: named }, directory }: TransformerRequest): void {
  if (named === undefined || directory === undefined || resolve(named) === resolve(directory)) return;
  throw new DitrunError(
    "ERR_OPTION_CONFLICT",
    `--model ${named} and --ckpt-dir ${directory} both name a checkpoint: leave one of them out.`,
  );
}

/** @throws DitrunError where the checkpoint has other sizes than the model that was named, or another number of transformers. */
async function modelOfCheckpoint(checkpoint: WanCheckpoint, named: FoundModel): Promise<WanModel> {
  const { transformer, transformer2 } = checkpoint;
  const config = requireWan(named);
  const model = await modelOfTransformer(transformer, named);
  if (transformer2 === undefined && config.boundary === undefined) return model;
  if (transformer2 === undefined)
    throw new DitrunError(
      "ERR_CHECKPOINT_INCOMPLETE",
      `--model ${named.name} has two transformers, and ${transformer.weights} is one: give the one for low noise with --transformer-2.`,
    );
  if (config.boundary === undefined)
    throw new DitrunError(
      "ERR_CHECKPOINT_MISMATCH",
      `${transformer2.weights} is a second transformer, and --model ${named.name} has one: give --model 2.2-T2V-A14B, or leave the second out.`,
    );
  await modelOfTransformer(transformer2, named);
  return { ...model, boundary: checkpoint.boundary ?? config.boundary };
}

/** @throws DitrunError where the transformer is of other sizes than the model that was named, or than its configuration says. */
async function modelOfTransformer(transformer: WanCheckpoint["transformer"], named: FoundModel): Promise<WanModel> {
  const config = requireWan(named);
  // Of a file alone the model's own configuration tells what tensors do not: the heads.
  const alone = transformer.config === undefined;
  const facts = await textToVideoFacts(transformer.weights);
  const found = alone ? config : await loadWanModel({ transformer });
  const stored = { ...facts, channels: facts.inputs, heads: found.heads };
  for (const key of tellingSizes) {
    if (found[key] !== config[key])
      throw new DitrunError(
        "ERR_CHECKPOINT_MISMATCH",
        `${transformer.config} describes a model with ${key} ${found[key]}, but --model ${named.name} has ${key} ${config[key]}: name the model that the checkpoint is of.`,
      );
    if (stored[key] !== found[key])
      throw new DitrunError(
        "ERR_CHECKPOINT_MISMATCH",
        `${transformer.weights} holds a transformer with ${key} ${stored[key]}, but ${alone ? `--model ${named.name}` : transformer.config} has ${key} ${found[key]}: name the model that it is of.`,
      );
  }
  return { ...found, name: config.name };
}

/** The transformer alone, where nothing else of the checkpoint is needed. @throws DitrunError as modelSource does. */
export async function transformerSource(
  request: TransformerRequest,
): Promise<{ readonly model: WanModel; readonly file: string }> {
  const { boundary } = requireWan(request.found);
  requireOne(request);
  const { named, folder, wanted } = await placesOf(request);
  if (boundary !== undefined && named.transformer === undefined)
    throw new DitrunError(
      "ERR_CHECKPOINT_UNSUPPORTED",
      `${request.found.name} has two transformers, and one file is of one: name each with --transformer, a file or the index of its shards.`,
    );
  const inFolder = async (path: string) => {
    const opened = await openFolder(path, request.verify, request.onNote);
    const config = await opened.config();
    return { weights: await opened.weights("transformer"), ...(config !== undefined && { config }) };
  };
  const transformer =
    named.transformer !== undefined
      ? { weights: resolve(named.transformer) }
      : folder !== undefined
        ? await inFolder(folder)
        : (await locateCheckpoint(wanted)).transformer;
  return { model: await modelOfTransformer(transformer, request.found), file: transformer.weights };
}

/** What files were named, the folder that the rest comes from, and what is looked for in the cache where there is none. */
async function placesOf(request: TransformerRequest) {
  const { found, download, verify, environment, onProgress, onNote } = request;
  const { preset } = found;
  const repository = await repositoryOf(request.directory);
  const directory = repository === undefined ? (request.directory ?? found.directory) : undefined;
  const bundled = repository === undefined ? preset?.bundled : undefined;
  const named = { ...(found.file !== undefined && { transformer: found.file }), ...definedOnly(request.files) };
  const { name, repositories } = preset ?? { name: found.name, repositories: defaultRepositories };
  const wanted = {
    ...{ model: name, repositories: repository === undefined ? repositories : ([repository] as const) },
    ...{ download, verify, environment, onProgress, onNote },
  };
  const folder = directory === undefined ? bundled : resolve(directory);
  const known = Object.keys(named).length > 0 || folder !== undefined || preset !== undefined;
  if (!known && repository === undefined) {
    throw new DitrunError(
      "ERR_CHECKPOINT_MISSING",
      `There is no known checkpoint of ${found.name}: name its folder with --ckpt-dir, or use --weights random.`,
    );
  }
  return { named, folder, wanted };
}

/** The checkpoint, and where files were named what it is made of, in words. */
async function findCheckpoint(
  request: SourceRequest,
): Promise<{ checkpoint: WanCheckpoint; description?: string | undefined }> {
  const { named, folder, wanted } = await placesOf(request);
  const two = requireWan(request.found).boundary !== undefined;
  if (!two && named["second transformer"] !== undefined)
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `--transformer-2 ${named["second transformer"]} is for the second transformer of Wan 2.2 A14B, and ${request.found.name} has one: leave it out.`,
    );
  if (Object.keys(named).length > 0) return assemble(wanted, named, folder, two);
  if (folder !== undefined) return { checkpoint: await openCheckpoint(folder, request.verify, request.onNote) };
  return { checkpoint: await locateCheckpoint(wanted) };
}

/** Whose text encoder and VAE all of Wan 2.1 share. */
const defaultRepositories: readonly [string, ...string[]] = ["Wan-AI/Wan2.1-T2V-1.3B"];

function definedOnly(files: NamedFiles = {}): NamedFiles {
  return Object.fromEntries(Object.entries(files).filter(([, file]) => file !== undefined));
}
