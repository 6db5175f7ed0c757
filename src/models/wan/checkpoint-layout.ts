import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { DitrunError } from "../../failure.js";
import { readTextFile } from "../../files/text-file.js";
import { mostPointerBytes, refuseLfsPointer } from "../../formats/lfs-pointer.js";
import { readShardIndex } from "../../formats/sharded.js";
import { shown } from "../../formats/shown.js";
import { refuseOtherTasks } from "./weights-task.js";

/** Where the parts of a Wan 2.1 text-to-video checkpoint stand. Weights are a single file or an index of shards. */
export interface WanCheckpoint {
  /** Which names the tensors have: those of the published code, or those of diffusers. */
  readonly layout: "original" | "diffusers";
  readonly directory: string;
  readonly transformer: { readonly config: string; readonly weights: string };
  /** The original layout has no configurations for these two: their shapes are those of the tensors. */
  readonly textEncoder: { readonly config?: string; readonly weights: string };
  readonly vae: { readonly config?: string; readonly weights: string };
  /** A folder with tokenizer.json and tokenizer_config.json. */
  readonly tokenizer: string;
}

/**
 * Finds out which layout a folder has and where its parts are; every file is checked to be there, shards included.
 * Throws DitrunError naming what is missing, or what a Wan checkpoint would have if the folder is none.
 */
export async function detectLayout(directory: string): Promise<WanCheckpoint> {
  await refuseOtherTasks(directory);
  if (await isFile(join(directory, "model_index.json"))) return diffusersLayout(directory);
  if (await isFile(join(directory, "config.json"))) return originalLayout(directory);
  const found = await stat(directory).catch(() => undefined);
  const why =
    found === undefined
      ? "there is no such folder"
      : found.isDirectory()
        ? "it has neither config.json (the original layout) nor model_index.json (the diffusers layout)"
        : "it is a file; name the folder that holds the whole checkpoint";
  throw new DitrunError("ERR_CHECKPOINT_UNSUPPORTED", `${directory} is not a Wan checkpoint: ${why}.`);
}

async function originalLayout(directory: string): Promise<WanCheckpoint> {
  const part = required(directory, "original");
  return {
    layout: "original",
    directory,
    transformer: { config: await part("config.json"), weights: await part(...weights("diffusion_pytorch_model")) },
    textEncoder: { weights: await part("models_t5_umt5-xxl-enc-bf16.pth") },
    vae: { weights: await part("Wan2.1_VAE.pth") },
    tokenizer: await tokenizerFolder(part, "google/umt5-xxl"),
  };
}

async function diffusersLayout(directory: string): Promise<WanCheckpoint> {
  const part = required(directory, "diffusers");
  const model = async (folder: string, name: string) => ({
    config: await part(`${folder}/config.json`),
    weights: await part(...weights(`${folder}/${name}`)),
  });
  return {
    layout: "diffusers",
    directory,
    transformer: await model("transformer", "diffusion_pytorch_model"),
    textEncoder: await model("text_encoder", "model"),
    vae: await model("vae", "diffusion_pytorch_model"),
    tokenizer: await tokenizerFolder(part, "tokenizer"),
  };
}

type Part = (name: string, ...alternatives: string[]) => Promise<string>;

const weights = (name: string) => [`${name}.safetensors`, `${name}.safetensors.index.json`] as const;

async function tokenizerFolder(part: Part, folder: string): Promise<string> {
  await part(`${folder}/tokenizer_config.json`);
  return dirname(await part(`${folder}/tokenizer.json`));
}

/**
 * Gives the path of the first of several alternative files that is there, its shards too if it is an index.
 * None of them may be a Git LFS pointer.
 */
function required(directory: string, layout: string): Part {
  const missing = async (name: string, alternatives: readonly string[]) => {
    const what = [name, ...alternatives].join(" (or ").concat(alternatives.length > 0 ? ")" : "");
    const instead = await standsInstead(join(directory, dirname(name)), basename(name));
    return new DitrunError(
      "ERR_CHECKPOINT_INCOMPLETE",
      `${directory} is a Wan checkpoint in the ${layout} layout, but ${what} is missing; ${instead ?? "download it again"}.`,
    );
  };
  return async (first, ...more) => {
    for (const name of [first, ...more]) {
      const path = join(directory, name);
      if (!(await isFile(path))) continue;
      await refuseUnfetched(path);
      if (name.endsWith(".index.json"))
        for (const shard of new Set((await readShardIndex(path)).values())) {
          const part = join(dirname(path), shard);
          if (!(await isFile(part))) throw await missing(join(dirname(name), shard), []);
          await refuseUnfetched(part);
        }
      return path;
    }
    throw await missing(first, more);
  };
}

/** @throws DitrunError for a Git LFS pointer. What cannot be read is reported when it is opened. */
async function refuseUnfetched(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile() && found.size <= mostPointerBytes)
    refuseLfsPointer(path, await readTextFile(path).catch(() => ""));
}

/** Other forms in which what is missing may be there, and what they are. None of them is read there. */
const otherForms: readonly (readonly [ending: RegExp, what: string])[] = [
  [/\.gguf$/i, "a GGUF file, a format that ditrun does not read"],
  [/-\d+-of-\d+\.safetensors$/, "one of its shards, without the index that lists them; download it again"],
  [/\.(?:fp16|bf16|fp32|fp8\w*)\.safetensors$/, "a variant by name; rename it if it is the whole model"],
  [/\.safetensors$/, "a safetensors file, which ditrun does not read in this place"],
  [
    /\.(?:bin|pt|pth|ckpt)$/,
    "a PyTorch file, which ditrun does not read in this place; take the published safetensors",
  ],
  [/^spiece\.model$/, "a SentencePiece model, which ditrun does not read; take the published tokenizer.json"],
];

/** A sentence's end that names what stands in the place of a file, or undefined if nothing that it may have become is there. */
async function standsInstead(folder: string, name: string): Promise<string | undefined> {
  const stem = name.replace(/\.[a-z].*$/, "");
  const partOf = (file: string) => /vae|t5|text_encoder/i.exec(`${basename(folder)}/${file}`)?.[0].toLowerCase();
  const related = (other: string) =>
    other !== name &&
    (name === "tokenizer.json"
      ? other === "spiece.model"
      : other.startsWith(stem) || other.startsWith("pytorch_model") || /\.gguf$/i.test(other)) &&
    (other.startsWith(stem) || partOf(other) === partOf(name));
  const others = (await readdir(folder).catch((): string[] => [])).filter(related).sort();
  for (const [ending, what] of otherForms)
    for (const other of others)
      if (ending.test(other) && (await isFile(join(folder, other))))
        return `${shown(other)} stands there instead: ${what}`;
  return undefined;
}

/** False only if nothing is there: a file that cannot be looked at is reported when it is opened. */
async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    (error: unknown) => !(error instanceof Error && "code" in error && absent.includes(String(error.code))),
  );
}

const absent: readonly string[] = ["ENOENT", "ENOTDIR"];
