import { readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { DitrunError, messageOf } from "../../protocol/failure.js";

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
  if (await isFile(join(directory, "model_index.json"))) return diffusersLayout(directory);
  if (await isFile(join(directory, "config.json"))) return originalLayout(directory);
  const why = (await isDirectory(directory)) ? "" : ": there is no such folder";
  throw new DitrunError(
    `${directory} is not a Wan checkpoint${why || ": it has neither config.json (the original layout) nor model_index.json (the diffusers layout)"}.`,
  );
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

type Part = (...names: string[]) => Promise<string>;

const weights = (name: string) => [`${name}.safetensors`, `${name}.safetensors.index.json`];

async function tokenizerFolder(part: Part, folder: string): Promise<string> {
  await part(`${folder}/tokenizer_config.json`);
  return dirname(await part(`${folder}/tokenizer.json`));
}

/** Gives the path of the first of several alternative files that is there, its shards too if it is an index. */
function required(directory: string, layout: string): Part {
  const missing = (what: string) =>
    new DitrunError(
      `${directory} is a Wan checkpoint in the ${layout} layout, but ${what} is missing; download it again.`,
    );
  return async (...names) => {
    for (const name of names) {
      const path = join(directory, name);
      if (!(await isFile(path))) continue;
      if (name.endsWith(".index.json"))
        for (const shard of await shardNames(path))
          if (!(await isFile(join(dirname(path), shard)))) throw missing(join(dirname(name), shard));
      return path;
    }
    throw missing(names.join(" (or ").concat(names.length > 1 ? ")" : ""));
  };
}

async function shardNames(index: string): Promise<Set<string>> {
  try {
    const { weight_map } = z
      .object({ weight_map: z.record(z.string(), z.string()) })
      .parse(JSON.parse(await readFile(index, "utf8")));
    return new Set(Object.values(weight_map));
  } catch (error) {
    const why = error instanceof z.ZodError ? "it has no weight_map from tensor names to file names" : messageOf(error);
    throw new DitrunError(`${index} is not an index of safetensors files: ${why}.`);
  }
}

/** False only if nothing is there: a file that cannot be looked at is reported when it is opened. */
async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    (error: unknown) => !(error instanceof Error && "code" in error && absent.includes(String(error.code))),
  );
}

const absent: readonly string[] = ["ENOENT", "ENOTDIR"];

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
