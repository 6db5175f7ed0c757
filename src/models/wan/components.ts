import { resolve } from "node:path";
import { DitrunError } from "../../failure.js";
import { cachedSnapshots, hubCache, repositoryFolder } from "../../hub/hub-cache.js";
import { CheckpointFolder, optionFor, type WanCheckpoint, type WeightsPart } from "./checkpoint-layout.js";
import { tokenizerFor } from "./find-tokenizer.js";
import { type CheckpointRequest, downloadCheckpoint, openFolder } from "./locate.js";
import { presets } from "./presets.js";

/** Files that were named one by one. */
export type NamedFiles = Readonly<Partial<Record<WeightsPart, string | undefined>>>;

/** Where a checkpoint comes from, in words, and its parts. */
export interface Assembled {
  readonly checkpoint: WanCheckpoint;
  readonly description: string;
}

const partsOf = (two: boolean): readonly WeightsPart[] => [
  "transformer",
  ...(two ? (["second transformer"] as const) : []),
  ...(["text encoder", "VAE"] as const),
];

/**
 * A checkpoint of files that were named; what is not named comes from `directory`, else from a checkpoint in the Hugging Face cache,
 * since all of Wan 2.1 and Wan 2.2 A14B share one text encoder and one VAE.
 * @param two whether the model has two transformers. @throws DitrunError when a part is missing.
 */
export async function assemble(
  request: CheckpointRequest,
  named: NamedFiles,
  directory: string | undefined,
  two: boolean,
): Promise<Assembled> {
  const weightsParts = partsOf(two);
  const needed = weightsParts.filter((part) => named[part] === undefined);
  const own = named["text encoder"];
  const ownTokenizer = own === undefined ? undefined : await tokenizerFor(resolve(own));
  const complete = needed.length === 0 && ownTokenizer !== undefined;
  const folder =
    directory !== undefined
      ? await openFolder(resolve(directory), request.verify, request.onNote)
      : complete
        ? undefined
        : await cachedFolder(request, needed, ownTokenizer === undefined);
  const fileOf = async (part: WeightsPart): Promise<string> => {
    const file = named[part];
    if (file !== undefined) return resolve(file);
    if (folder === undefined) throw new Error(`The ${part} is neither named nor looked for.`);
    return folder.weights(part);
  };
  const textEncoder = await fileOf("text encoder");
  const tokenizer = ownTokenizer ?? (await folder?.tokenizer()) ?? (await tokenizerFor(textEncoder));
  if (tokenizer === undefined)
    throw new DitrunError(
      "ERR_CHECKPOINT_INCOMPLETE",
      `There is no tokenizer in ${textEncoder}, beside it${folder ? ` or in ${folder.directory}` : ""}: put tokenizer.json or spiece.model of google/umt5-xxl beside it.`,
    );
  const config = named.transformer === undefined ? await folder?.config() : undefined;
  const config2 = named["second transformer"] === undefined ? await folder?.config2() : undefined;
  const boundary = await folder?.boundary();
  const given = weightsParts.flatMap((part) => (named[part] === undefined ? [] : [`${part} ${named[part]}`]));
  const rest =
    folder && (needed.length > 0 || ownTokenizer === undefined)
      ? [`the ${needed.length > 0 ? "rest" : "tokenizer"} from ${folder.directory}`]
      : [];
  return {
    checkpoint: {
      ...{ layout: folder?.name ?? "single-file", directory: folder?.directory ?? "" },
      transformer: { weights: await fileOf("transformer"), ...(config !== undefined && { config }) },
      ...(two && {
        transformer2: {
          weights: await fileOf("second transformer"),
          ...(config2 !== undefined && { config: config2 }),
        },
      }),
      ...(two && boundary !== undefined && { boundary }),
      ...{ textEncoder: { weights: textEncoder }, vae: { weights: await fileOf("VAE") }, tokenizer },
    },
    description: [...given, ...rest].join(", "),
  };
}

/** A checkpoint in the cache that has the parts that are needed. */
async function cachedFolder(
  request: CheckpointRequest,
  needed: readonly WeightsPart[],
  tokenizer: boolean,
): Promise<CheckpointFolder> {
  const cache = hubCache(request.environment);
  const others = Object.values(presets).flatMap(({ repositories }) => repositories);
  for (const repository of new Set([...request.repositories, ...others])) {
    const { snapshots } = await cachedSnapshots(repositoryFolder(cache, repository));
    for (const snapshot of snapshots) {
      const folder = await withParts(snapshot, needed, tokenizer);
      if (folder) return folder;
    }
  }
  if (request.download) return CheckpointFolder.open(await downloadCheckpoint(request));
  const what = [...needed, ...(tokenizer ? ["tokenizer"] : [])];
  const [first] = needed;
  throw new DitrunError(
    "ERR_CHECKPOINT_MISSING",
    `No ${what.join(", ")} was named, and no checkpoint in the Hugging Face cache ${cache} has ${what.length === 1 ? "one" : "them"}: name ${first === undefined ? "a folder with one with --ckpt-dir" : `it with ${optionFor(first)}`}, or add --download.`,
  );
}

async function withParts(
  snapshot: string,
  needed: readonly WeightsPart[],
  tokenizer: boolean,
): Promise<CheckpointFolder | undefined> {
  try {
    const folder = await CheckpointFolder.open(snapshot);
    for (const part of needed) await folder.weights(part);
    return tokenizer && (await folder.tokenizer()) === undefined ? undefined : folder;
  } catch (error) {
    if (error instanceof DitrunError) return undefined;
    throw error;
  }
}
