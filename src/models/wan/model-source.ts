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
import { locateCheckpoint, openCheckpoint } from "./locate.js";
import { textToVideoFacts } from "./tensors/transformer-facts.js";

export interface SourceRequest {
  readonly found: FoundModel;
  readonly weights: "checkpoint" | "random";
  readonly seed: Seed;
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
  const { name, model: config, preset, directory: named } = request.found;
  if (!isWan(config)) {
    throw new DitrunError(
      "ERR_MODEL_KIND",
      `This command runs Wan 2.1, but ${name} is a ${config.kind} model: choose 1.4B, 14B or tiny.`,
    );
  }
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
  if (named !== undefined && directory !== undefined && resolve(named) !== resolve(directory)) {
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      `--model ${named} and --ckpt-dir ${directory} both name a checkpoint: leave one of them out.`,
    );
  }
  const { checkpoint, description } = await findCheckpoint(request);
  const { transformer, textEncoder, vae, tokenizer } = checkpoint;
  // Of a file alone the model's own configuration tells what tensors do not: the heads.
  const alone = transformer.config === undefined;
  const facts = await textToVideoFacts(transformer.weights);
  const found = alone ? config : await loadWanModel(checkpoint);
  const stored = { ...facts, channels: facts.inputs, heads: found.heads };
  for (const key of tellingSizes) {
    if (found[key] !== config[key])
      throw new DitrunError(
        "ERR_CHECKPOINT_MISMATCH",
        `${transformer.config} describes a model with ${key} ${found[key]}, but --model ${name} has ${key} ${config[key]}: name the model that the checkpoint is of.`,
      );
    if (stored[key] !== found[key])
      throw new DitrunError(
        "ERR_CHECKPOINT_MISMATCH",
        `${transformer.weights} holds a transformer with ${key} ${stored[key]}, but ${alone ? `--model ${name}` : transformer.config} has ${key} ${found[key]}: name the model that it is of.`,
      );
  }
  return {
    model: { ...found, name: config.name },
    weights: {
      ...{ from: "checkpoint", transformer: transformer.weights },
      ...{ textEncoder: textEncoder.weights, vae: vae.weights },
    },
    tokenizer,
    description:
      preset?.bundled === checkpoint.directory && description === undefined
        ? "the small checkpoint that comes with ditrun"
        : (description ?? `${checkpoint.directory}, ${checkpoint.layout} layout`),
  };
}

const partOption = (part: string) => (part === "text encoder" ? "--text-encoder" : `--${part.toLowerCase()}`);

/** The checkpoint, and where files were named what it is made of, in words. */
async function findCheckpoint(
  request: SourceRequest,
): Promise<{ checkpoint: WanCheckpoint; description?: string | undefined }> {
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
  if (Object.keys(named).length > 0) return assemble(wanted, named, directory ?? bundled);
  if (directory !== undefined) return { checkpoint: await openCheckpoint(resolve(directory), verify, onNote) };
  if (bundled !== undefined) return { checkpoint: await openCheckpoint(bundled, verify, onNote) };
  if (!preset && repository === undefined) {
    throw new DitrunError(
      "ERR_CHECKPOINT_MISSING",
      `There is no known checkpoint of ${found.name}: name its folder with --ckpt-dir, or use --weights random.`,
    );
  }
  return { checkpoint: await locateCheckpoint(wanted) };
}

/** Whose text encoder and VAE all of Wan 2.1 share. */
const defaultRepositories: readonly [string, ...string[]] = ["Wan-AI/Wan2.1-T2V-1.3B"];

function definedOnly(files: NamedFiles = {}): NamedFiles {
  return Object.fromEntries(Object.entries(files).filter(([, file]) => file !== undefined));
}
