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
import { type FoundModel, tellingSizes } from "./find-model.js";
import { locateCheckpoint, openCheckpoint } from "./locate.js";

export interface SourceRequest {
  readonly found: FoundModel;
  readonly weights: "checkpoint" | "random";
  readonly seed: Seed;
  /** --ckpt-dir: another folder than the one that is the model. */
  readonly directory: string | undefined;
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
  /** A folder with tokenizer.json; absent where weights are random. */
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
  const checkpoint = await findCheckpoint(request);
  const found = await loadWanModel(checkpoint);
  for (const key of tellingSizes) {
    if (found[key] === config[key]) continue;
    throw new DitrunError(
      "ERR_CHECKPOINT_MISMATCH",
      `${checkpoint.transformer.config} describes a model with ${key} ${found[key]}, but --model ${name} has ${key} ${config[key]}: name the model that the checkpoint is of.`,
    );
  }
  const { layout, transformer, textEncoder, vae, tokenizer } = checkpoint;
  const bundled = preset?.bundled === checkpoint.directory;
  return {
    model: { ...found, name: config.name },
    weights: {
      ...{ from: "checkpoint", layout, transformer: transformer.weights },
      ...{ textEncoder: textEncoder.weights, vae: vae.weights },
    },
    tokenizer,
    description: bundled ? "the small checkpoint that comes with ditrun" : `${checkpoint.directory}, ${layout} layout`,
  };
}

async function findCheckpoint(request: SourceRequest): Promise<WanCheckpoint> {
  const { found, download, verify, environment, onProgress, onNote } = request;
  const { preset } = found;
  const directory = request.directory ?? found.directory;
  if (directory !== undefined) return openCheckpoint(resolve(directory), verify, onNote);
  if (preset?.bundled !== undefined) return openCheckpoint(preset.bundled, verify, onNote);
  if (!preset) {
    throw new DitrunError(
      "ERR_CHECKPOINT_MISSING",
      `There is no known checkpoint of ${found.name}: name its folder with --ckpt-dir, or use --weights random.`,
    );
  }
  const { name, repositories } = preset;
  return locateCheckpoint({ model: name, repositories, download, verify, environment, onProgress, onNote });
}
