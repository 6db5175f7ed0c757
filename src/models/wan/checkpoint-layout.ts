import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { DitrunError } from "../../failure.js";
import { checkDocument } from "../../files/documents.js";
import { readTextFile } from "../../files/text-file.js";
import { readJsonFile } from "../../formats/json-file.js";
import { mostPointerBytes, refuseLfsPointer } from "../../formats/lfs-pointer.js";
import { readShardIndex } from "../../formats/sharded.js";
import { shown } from "../../formats/shown.js";
import { boundarySchema } from "../schema.js";
import { findByContent } from "./find-by-content.js";
import { tokenizerFor } from "./find-tokenizer.js";
import { optionOf } from "./tensors/open-part.js";
import { tokenizerIn } from "./text/tokenizer-source.js";
import { refuseOtherTasks } from "./weights-task.js";

/** The weights that text-to-video needs; of Wan 2.2 A14B two transformers, the first for high noise. */
export type WeightsPart = "transformer" | "second transformer" | "text encoder" | "VAE";

/** What a file of this part holds, by its tensors: those of the two transformers do not tell them apart. */
export const contentOf = (part: WeightsPart) => (part === "second transformer" ? "transformer" : part);

/** The option that takes a part's file. */
export const optionFor = (part: WeightsPart): string | undefined =>
  part === "second transformer" ? "--transformer-2" : optionOf[part];

/** A transformer's file, or the index of several. Without a configuration its sizes are those of its tensors. */
export interface TransformerFiles {
  readonly config?: string;
  readonly weights: string;
}

/** How the files of a checkpoint stand in a folder; of the last one there is nothing but weights. */
export type LayoutName = "original" | "diffusers" | "ComfyUI" | "single-file";

/** Where the parts of a Wan checkpoint are. Weights are a single file or an index of shards, and several parts may share a file. */
export interface WanCheckpoint {
  readonly layout: LayoutName;
  readonly directory: string;
  readonly transformer: TransformerFiles;
  /** The one for low noise, where there are two. */
  readonly transformer2?: TransformerFiles;
  /** Where it takes over, of the 1000 time steps, if the checkpoint says so. */
  readonly boundary?: number;
  readonly textEncoder: { readonly weights: string };
  readonly vae: { readonly weights: string };
  /** A folder or file of readTokenizer. */
  readonly tokenizer: string;
}

interface Place {
  readonly names: readonly string[];
  readonly folders: readonly string[];
}

/** How a folder may hold a checkpoint: names of the files below it, and the folders to look into where those are not there. */
interface Layout {
  readonly name: LayoutName;
  readonly config?: string;
  /** Of the second transformer, where the layout has two. */
  readonly config2?: string;
  readonly weights: Readonly<Record<Exclude<WeightsPart, "second transformer">, Place>> & {
    readonly "second transformer"?: Place;
  };
  readonly tokenizers: readonly string[];
}

const weights = (name: string) => [`${name}.safetensors`, `${name}.safetensors.index.json`];

const original: Layout = {
  name: "original",
  config: "config.json",
  weights: {
    transformer: { names: weights("diffusion_pytorch_model"), folders: ["."] },
    "text encoder": { names: ["models_t5_umt5-xxl-enc-bf16.pth"], folders: ["."] },
    VAE: { names: ["Wan2.1_VAE.pth"], folders: ["."] },
  },
  tokenizers: ["google/umt5-xxl"],
};
const diffusers: Layout = {
  name: "diffusers",
  config: "transformer/config.json",
  weights: {
    transformer: { names: weights("transformer/diffusion_pytorch_model"), folders: ["transformer"] },
    "text encoder": { names: weights("text_encoder/model"), folders: ["text_encoder"] },
    VAE: { names: weights("vae/diffusion_pytorch_model"), folders: ["vae"] },
  },
  tokenizers: ["tokenizer"],
};
const transformerIn = (folder: string): Place => ({
  names: weights(`${folder}/diffusion_pytorch_model`),
  folders: [folder],
});
/** The same with two transformers: Wan 2.2 A14B. */
const originalTwo: Layout = {
  ...original,
  ...{ config: "high_noise_model/config.json", config2: "low_noise_model/config.json" },
  weights: {
    ...original.weights,
    ...{ transformer: transformerIn("high_noise_model"), "second transformer": transformerIn("low_noise_model") },
  },
};
const diffusersTwo: Layout = {
  ...diffusers,
  config2: "transformer_2/config.json",
  weights: { ...diffusers.weights, "second transformer": transformerIn("transformer_2") },
};
const comfy: Layout = {
  name: "ComfyUI",
  weights: {
    transformer: { names: [], folders: ["diffusion_models", "unet"] },
    "text encoder": { names: [], folders: ["text_encoders", "clip"] },
    VAE: { names: [], folders: ["vae"] },
  },
  tokenizers: [],
};
const files: Layout = {
  name: "single-file",
  weights: {
    transformer: { names: [], folders: ["."] },
    "text encoder": { names: [], folders: ["."] },
    VAE: { names: [], folders: ["."] },
  },
  tokenizers: ["."],
};

/** A folder with a checkpoint, of which each part is looked for when it is asked for. */
export class CheckpointFolder {
  private constructor(
    readonly directory: string,
    private readonly layout: Layout,
  ) {}

  /** @throws DitrunError when the folder is none, or has a checkpoint of another task. */
  static async open(directory: string): Promise<CheckpointFolder> {
    await refuseOtherTasks(directory);
    const names = new Set(await readdir(directory).catch((): string[] => []));
    const layout = layoutOf(names);
    if (layout) return new CheckpointFolder(directory, layout);
    if ([...names].some((name) => /\.(?:safetensors|gguf|pth)$/.test(name)))
      return new CheckpointFolder(directory, files);
    const found = await stat(directory).catch(() => undefined);
    const why =
      found === undefined
        ? "there is no such folder"
        : found.isDirectory()
          ? "it has neither config.json (the original layout) nor model_index.json (the diffusers layout), and no file of weights"
          : "it is a file; name the folder that holds the whole checkpoint, or give the file with --transformer";
    throw new DitrunError("ERR_CHECKPOINT_UNSUPPORTED", `${directory} is not a Wan checkpoint: ${why}.`);
  }

  get name(): LayoutName {
    return this.layout.name;
  }

  /** Whether the layout has two transformers. */
  get hasTwo(): boolean {
    return this.layout.config2 !== undefined;
  }

  /** Where the second transformer takes over, as diffusers' model_index.json says. @throws DitrunError where that is no such number. */
  async boundary(): Promise<number | undefined> {
    const file = join(this.directory, "model_index.json");
    if (!this.hasTwo || this.layout.name !== "diffusers") return undefined;
    return (
      checkDocument(file, await readJsonFile(file), z.looseObject({ boundary_ratio: boundarySchema.nullish() }))
        .boundary_ratio ?? undefined
    );
  }

  /** The transformer's configuration, where the layout has one. @throws DitrunError when it is missing. */
  async config(): Promise<string | undefined> {
    const { config } = this.layout;
    const found = await this.configIfThere();
    if (config !== undefined && found === undefined) throw this.#missing(config);
    return found;
  }

  /** The second transformer's configuration, where the layout has one. @throws DitrunError when it is missing. */
  async config2(): Promise<string | undefined> {
    const { config2 } = this.layout;
    if (config2 === undefined) return undefined;
    const path = join(this.directory, config2);
    if (await isFile(path)) return path;
    throw this.#missing(config2);
  }

  /** The same, but it may be missing. */
  async configIfThere(): Promise<string | undefined> {
    const { config } = this.layout;
    const path = config === undefined ? undefined : join(this.directory, config);
    return path !== undefined && (await isFile(path)) ? path : undefined;
  }

  /**
   * The file of a part: by its published name, else the only file in its place that holds the part, whatever its name and kind.
   * @throws DitrunError when it is missing, or stands there more than once; when a shard is missing or anything else stands in its place.
   */
  async weights(part: WeightsPart): Promise<string> {
    const { names, folders } = this.layout.weights[part] ?? { names: [], folders: [] };
    for (const name of names) {
      const path = join(this.directory, name);
      if (!(await isFile(path))) continue;
      await refuseUnfetched(path);
      if (name.endsWith(".index.json")) await this.#checkShards(path, dirname(name));
      return path;
    }
    const { found, strangers } = await findByContent(
      folders.map((folder) => join(this.directory, folder)),
      contentOf(part),
    );
    const [only, second] = found;
    if (only !== undefined && second === undefined) return only;
    if (only !== undefined)
      throw new DitrunError(
        "ERR_CHECKPOINT_AMBIGUOUS",
        `${this.directory} has ${found.length} files with a ${part}, ${basename(only)} and ${basename(second ?? "")} among them: name one with ${optionFor(part)}${part === "transformer" ? ", or the two of Wan 2.2 with --transformer (high noise) and --transformer-2" : ""}.`,
      );
    const [first = part, ...more] = names;
    throw this.#missing(first, more, strangers[0]);
  }

  /** The tokenizer's folder or file. @returns undefined where there is none. */
  async tokenizer(): Promise<string | undefined> {
    for (const folder of this.layout.tokenizers) {
      const path = join(this.directory, folder);
      const found = await tokenizerIn(path);
      if (found === undefined) continue;
      await refuseUnfetched(found);
      return found.endsWith(".json") ? path : found;
    }
    return undefined;
  }

  /** @throws DitrunError that names what is missing. */
  noTokenizer(): never {
    const [folder = "."] = this.layout.tokenizers;
    throw this.#missing(join(folder, "tokenizer.json"));
  }

  async #checkShards(index: string, folder: string): Promise<void> {
    for (const shard of new Set((await readShardIndex(index)).values())) {
      const path = join(dirname(index), shard);
      if (!(await isFile(path))) throw this.#missing(join(folder, shard));
      await refuseUnfetched(path);
    }
  }

  /** @param stranger a file that stands there, and holds no part of a Wan model. */
  #missing(name: string, alternatives: readonly string[] = [], stranger?: string): DitrunError {
    const what = [name, ...alternatives].join(" (or ").concat(alternatives.length > 0 ? ")" : "");
    return new DitrunError(
      "ERR_CHECKPOINT_INCOMPLETE",
      `${this.directory} is a Wan checkpoint in the ${this.layout.name} layout, but ${what} is missing${stranger === undefined ? "" : `, and ${shown(basename(stranger))} holds no part of a Wan model`}; download it again.`,
    );
  }
}

/**
 * Finds out which layout a folder has and where its parts are; every file is checked to be there, shards included.
 * Throws DitrunError naming what is missing, or what a Wan checkpoint would have if the folder is none.
 */
export async function detectLayout(directory: string): Promise<WanCheckpoint> {
  const folder = await CheckpointFolder.open(directory);
  const config = await folder.config();
  const transformer = await folder.weights("transformer");
  const two = await secondOf(folder);
  const textEncoder = await folder.weights("text encoder");
  const vae = await folder.weights("VAE");
  return {
    ...{ layout: folder.name, directory },
    transformer: { weights: transformer, ...(config !== undefined && { config }) },
    ...two,
    ...{ textEncoder: { weights: textEncoder }, vae: { weights: vae } },
    tokenizer: (await folder.tokenizer()) ?? (await tokenizerFor(textEncoder)) ?? folder.noTokenizer(),
  };
}

/** The second transformer of a folder, and where it takes over; nothing where there is one. @throws DitrunError when a file is missing. */
export async function secondOf(folder: CheckpointFolder): Promise<Pick<WanCheckpoint, "transformer2" | "boundary">> {
  if (!folder.hasTwo) return {};
  const config = await folder.config2();
  const boundary = await folder.boundary();
  return {
    transformer2: { weights: await folder.weights("second transformer"), ...(config !== undefined && { config }) },
    ...(boundary !== undefined && { boundary }),
  };
}

function layoutOf(names: ReadonlySet<string>): Layout | undefined {
  if (names.has("model_index.json")) return names.has("transformer_2") ? diffusersTwo : diffusers;
  if (names.has("high_noise_model") || names.has("low_noise_model")) return originalTwo;
  if (names.has("config.json")) return original;
  return names.has("diffusion_models") || names.has("unet") ? comfy : undefined;
}

/** @throws DitrunError for a Git LFS pointer. What cannot be read is reported when it is opened. */
async function refuseUnfetched(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile() && found.size <= mostPointerBytes)
    refuseLfsPointer(path, await readTextFile(path).catch(() => ""));
}

/** False only if nothing is there: a file that cannot be looked at is reported when it is opened. */
async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    (error: unknown) => !(error instanceof Error && "code" in error && absent.includes(String(error.code))),
  );
}

const absent: readonly string[] = ["ENOENT", "ENOTDIR"];
