import { stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { isWanConfig, loadWanModel } from "../load.js";
import type { WanModel } from "../schema.js";
import type { WanCheckpoint } from "./checkpoint-layout.js";
import { openFolder } from "./locate.js";
import { headsOf, isPublished, textToVideoFacts } from "./tensors/transformer-facts.js";

/** The model of a transformer's file. */
export interface FileModel {
  readonly model: WanModel;
  readonly transformer: WanCheckpoint["transformer"];
  /** A sentence where its heads are not told by anything. */
  readonly guessed: string | undefined;
}

/**
 * The model of a transformer that is a file. Its heads, which its tensors do not tell, are what its own metadata say, else the
 * configuration beside it, else that of `folder` where it is of a model of these sizes.
 * @param folder of a checkpoint, which may be another model's: its text encoder serves all.
 * @throws DitrunError when the file holds none that ditrun runs, or a configuration is of another model.
 */
export async function modelOfFile(file: string, folder?: string): Promise<FileModel> {
  const weights = resolve(file);
  const { config: own, width, layers } = await textToVideoFacts(weights);
  const beside = own === undefined ? await configBeside(weights) : undefined;
  if (beside !== undefined) return withConfig(weights, beside);
  if (own === undefined && folder !== undefined) {
    const config = await (await openFolder(folder)).configIfThere();
    const model = config === undefined ? undefined : await loadWanModel({ transformer: { weights, config } });
    if (config !== undefined && model?.width === width && model.layers === layers)
      return { model, transformer: { weights, config }, guessed: undefined };
  }
  const model = await loadWanModel({ transformer: { weights } });
  const guessed =
    own !== undefined || isPublished({ width, layers })
      ? undefined
      : `${file} does not say how many heads it has: ${headsOf(width)} of 128 columns are taken, as published models have; a config.json beside it would say.`;
  return { model, transformer: { weights }, guessed };
}

async function withConfig(weights: string, config: string): Promise<FileModel> {
  const transformer = { weights, config };
  return { model: await loadWanModel({ transformer }), transformer, guessed: undefined };
}

/** The configuration of a transformer beside its file; undefined where there is none. */
export async function configBeside(weights: string): Promise<string | undefined> {
  const path = join(dirname(weights), "config.json");
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() && (await isWanConfig(path)) ? path : undefined;
}
