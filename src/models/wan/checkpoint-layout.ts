import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { DitrunError } from "../../failure.js";
import { readTextFile } from "../../files/text-file.js";
import { mostPointerBytes, refuseLfsPointer } from "../../formats/lfs-pointer.js";
import { readShardIndex } from "../../formats/sharded.js";
import { shown } from "../../formats/shown.js";
import { findByContent } from "./find-by-content.js";
import { tokenizerFor } from "./find-tokenizer.js";
import { optionOf } from "./tensors/open-part.js";
import { tokenizerIn } from "./text/tokenizer-source.js";
import { refuseOtherTasks } from "./weights-task.js";

/** The weights that text-to-video needs. */
export type WeightsPart = "transformer" | "text encoder" | "VAE";

/** How the files of a checkpoint stand in a folder; of the last one there is nothing but weights. */
export type LayoutName = "original" | "diffusers" | "ComfyUI" | "single-file";

/** Where the parts of a Wan checkpoint are. Weights are a single file or an index of shards, and several parts may share a file. */
export interface WanCheckpoint {
  readonly layout: LayoutName;
  readonly directory: string;
  /** Without a configuration its sizes are those of its tensors. */
  readonly transformer: { readonly config?: string; readonly weights: string };
  readonly textEncoder: { readonly weights: string };
  readonly vae: { readonly weights: string };
  /** A folder or file of readTokenizer. */
  readonly tokenizer: string;
}

/** How a folder may hold a checkpoint: names of the files below it, and the folders to look into where those are not there. */
interface Layout {
  readonly name: LayoutName;
  readonly config?: string;
  readonly weights: Readonly<
    Record<WeightsPart, { readonly names: readonly string[]; readonly folders: readonly string[] }>
  >;
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
    const layout = names.has("model_index.json")
      ? diffusers
      : names.has("config.json")
        ? original
        : names.has("diffusion_models") || names.has("unet")
          ? comfy
          : undefined;
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

  /** The transformer's configuration, where the layout has one. @throws DitrunError when it is missing. */
  async config(): Promise<string | undefined> {
    const { config } = this.layout;
    const found = await this.configIfThere();
    if (config !== undefined && found === undefined) throw this.#missing(config);
    return found;
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
    const { names, folders } = this.layout.weights[part];
    for (const name of names) {
      const path = join(this.directory, name);
      if (!(await isFile(path))) continue;
      await refuseUnfetched(path);
      if (name.endsWith(".index.json")) await this.#checkShards(path, dirname(name));
      return path;
    }
    const { found, strangers } = await findByContent(
      folders.map((folder) => join(this.directory, folder)),
      part,
    );
    const [only, second] = found;
    if (only !== undefined && second === undefined) return only;
    if (only !== undefined)
      throw new DitrunError(
        "ERR_CHECKPOINT_AMBIGUOUS",
        `${this.directory} has ${found.length} files with a ${part}, ${basename(only)} and ${basename(second ?? "")} among them: name one with ${optionOf[part]}.`,
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
  const textEncoder = await folder.weights("text encoder");
  const vae = await folder.weights("VAE");
  return {
    ...{ layout: folder.name, directory },
    transformer: { weights: transformer, ...(config !== undefined && { config }) },
    ...{ textEncoder: { weights: textEncoder }, vae: { weights: vae } },
    tokenizer: (await folder.tokenizer()) ?? (await tokenizerFor(textEncoder)) ?? folder.noTokenizer(),
  };
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
