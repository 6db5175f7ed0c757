import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { DitrunError } from "../../failure.js";
import { cachedSnapshots, type Environment, hubCache, repositoryFolder } from "../../hub/hub-cache.js";
import { loadModel, loadWanModel } from "../load.js";
import { isWan } from "../registry.js";
import type { Model, WanModel } from "../schema.js";
import type { TransformerFiles } from "./checkpoint-layout.js";
import { modelOfFile } from "./find-config.js";
import { openCheckpoint } from "./locate.js";
import { presetNames, presetOf, presets, publishedBoundary, type WanPreset } from "./presets.js";

/** A model that somebody named. */
export interface FoundModel {
  /** As it was named, for messages. */
  readonly name: string;
  readonly model: Model;
  /** What its authors publish for it, if they do. */
  readonly preset: WanPreset | undefined;
  /** The folder of the checkpoint, where that is what was named. */
  readonly directory: string | undefined;
  /** The transformer's file, where that is what was named. */
  readonly file?: string | undefined;
  /** A sentence for people, where something of it had to be guessed. */
  readonly guessed?: string | undefined;
}

/**
 * The model that --model names: a name as `1.4B` or `dit`, a repository of the hub as `Wan-AI/Wan2.1-T2V-1.3B`, a YAML file, or
 * a checkpoint's folder. A folder that is there comes before a repository of the same name.
 * @throws DitrunError for what is none of these, and for checkpoints of other tasks than text-to-video.
 */
export async function findModel(name: string): Promise<FoundModel> {
  const preset = presetOf(name);
  if ((name.includes("/") || preset === undefined) && (await isFolder(name))) return findCheckpointModel(name);
  refuseOtherTask(name);
  return { name, model: await loadModel(preset?.config ?? name, presetNames), preset, directory: undefined };
}

/** The model of a checkpoint, as its configuration says. @throws DitrunError when the folder holds none that ditrun runs. */
export async function findCheckpointModel(directory: string): Promise<FoundModel> {
  const model = await loadWanModel(await openCheckpoint(resolve(directory)));
  return { name: directory, model, preset: await presetLike(model), directory };
}

/**
 * The model of a transformer's file, as modelOfFile has it. @param directory --ckpt-dir: a folder, or a repository in the cache.
 * @param second the file of the second of two transformers.
 * @throws DitrunError when the file holds none that ditrun runs.
 */
export async function findFileModel(
  file: string,
  directory?: string,
  environment: Environment = {},
  second?: string,
): Promise<FoundModel> {
  const repository = await repositoryOf(directory);
  const cached = repository === undefined ? undefined : repositoryFolder(hubCache(environment), repository);
  const there = cached !== undefined && (await cachedSnapshots(cached)).snapshots.length > 0;
  const folder = repository === undefined ? directory : there ? cached : undefined;
  const { model, transformer, guessed } = await modelOfFile(file, folder && resolve(folder));
  const both = second === undefined ? model : await withSecond(model, transformer, second);
  const found = { name: file, model: both, preset: await presetLike(both), directory: undefined };
  return { ...found, file: transformer.weights, ...(guessed !== undefined && { guessed }) };
}

/** @throws DitrunError where the second file is none of a transformer of the same sizes. */
async function withSecond(model: WanModel, first: TransformerFiles, file: string): Promise<WanModel> {
  const { transformer } = await modelOfFile(file);
  const { boundary = publishedBoundary } = await loadWanModel({ transformer: first, transformer2: transformer });
  return { ...model, boundary };
}

/** The repository that a text names instead of a folder, or undefined: `owner/name`, and no such folder is there. */
export async function repositoryOf(directory: string | undefined): Promise<string | undefined> {
  if (directory === undefined || !/^[\w][\w.-]*\/[\w][\w.-]*$/.test(directory)) return undefined;
  return (await isFolder(directory)) || (await isFile(directory)) ? undefined : directory;
}

/** The model of a repository's checkpoint in the cache. @throws DitrunError when it is not there, unless it is a published one. */
export async function findRepositoryModel(repository: string, environment: Environment): Promise<FoundModel> {
  if (presetOf(repository)) return findModel(repository);
  refuseOtherTask(repository);
  const folder = repositoryFolder(hubCache(environment), repository);
  if ((await cachedSnapshots(folder)).snapshots.length > 0) return findCheckpointModel(folder);
  throw new DitrunError(
    "ERR_CHECKPOINT_MISSING",
    `There is no folder ${repository}, and the Hugging Face cache has no repository of this name: say with --model of what model it is, and add --download.`,
  );
}

/** Sizes that tell models apart. */
export const tellingSizes = ["width", "layers", "heads", "ffn", "channels"] as const;

async function presetLike(model: WanModel): Promise<WanPreset | undefined> {
  for (const preset of new Set(Object.values(presets))) {
    const known = await loadModel(preset.config);
    const same = (key: (typeof tellingSizes)[number]) => isWan(known) && known[key] === model[key];
    const two = isWan(known) && known.boundary !== undefined;
    if (tellingSizes.every(same) && two === (model.boundary !== undefined)) return preset;
  }
  return undefined;
}

const isFile = (path: string) =>
  stat(path).then(
    (found) => found.isFile(),
    () => false,
  );

const isFolder = (path: string) =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );

const otherTasks: readonly (readonly [name: RegExp, what: string])[] = [
  [/(?:^|[-_/])i2v/i, "image-to-video"],
  [/(?:^|[-_/])flf2v/i, "first-and-last-frame-to-video"],
  [/(?:^|[-_/])vace/i, "VACE, which edits videos"],
  [/(?:^|[-_/])(?:ti2v|s2v|animate)/i, "Wan 2.2"],
];

/** A repository's name may say what it is for; names of files do not count. */
function refuseOtherTask(name: string): void {
  if (/\.(?:ya?ml|json)$/.test(name)) return;
  const [, what] = otherTasks.find(([pattern]) => pattern.test(name)) ?? [];
  if (what === undefined) return;
  throw new DitrunError(
    "ERR_CHECKPOINT_UNSUPPORTED",
    `--model ${name} is ${what}, and ditrun runs text-to-video: give --model 1.3B, 14B or 2.2-T2V-A14B.`,
  );
}
