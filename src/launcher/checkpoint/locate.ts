import { DitrunError, exitCodes } from "../../protocol/failure.js";
import { downloadRepository, type Progress } from "./download.js";
import { cachedSnapshot, type Environment, hubCache } from "./hub-cache.js";
import { detectLayout, type WanCheckpoint } from "./layout.js";

export interface CheckpointRequest {
  /** The model as the user names it, for messages: `1.4B`. */
  readonly model: string;
  /** Repositories that hold it, the one to download first. */
  readonly repositories: readonly [string, ...string[]];
  /** --ckpt-dir: looked at instead of the cache. */
  readonly directory?: string;
  /** --download: fetch into the cache what is not there. */
  readonly download: boolean;
  readonly environment: Environment;
  readonly onProgress?: (progress: Progress) => void;
}

/**
 * Finds a Wan checkpoint: in --ckpt-dir if given, else in the Hugging Face cache, else by download if that is asked for.
 * Throws DitrunError with the exact command that gets one if there is none.
 */
export async function locateCheckpoint(request: CheckpointRequest): Promise<WanCheckpoint> {
  const { model, repositories, directory, download, environment, onProgress } = request;
  if (directory !== undefined) return detectLayout(directory);
  const cache = hubCache(environment);
  const command = `ditrun wan --model ${model} generate --download --prompt "…"`;

  let incomplete: DitrunError | undefined;
  for (const repository of repositories) {
    const snapshot = await cachedSnapshot(cache, repository);
    if (snapshot === undefined) continue;
    try {
      return await detectLayout(snapshot);
    } catch (error) {
      if (!(error instanceof DitrunError)) throw error;
      incomplete ??= error;
    }
  }
  if (download) {
    const { HF_ENDPOINT, HF_TOKEN } = environment;
    const snapshot = await downloadRepository({
      repository: repositories[0],
      cache,
      ...(HF_ENDPOINT ? { endpoint: HF_ENDPOINT } : {}),
      ...(HF_TOKEN ? { token: HF_TOKEN } : {}),
      ...(onProgress ? { onProgress } : {}),
    });
    return detectLayout(snapshot);
  }
  throw new DitrunError(
    incomplete === undefined
      ? `No checkpoint of Wan ${model} is in the Hugging Face cache ${cache}; get ${repositories[0]} with \`${command}\`, or name a folder that has one with --ckpt-dir.`
      : `${incomplete.message.replace(/; download it again\.$/, "")}; complete it with \`${command}\`.`,
    exitCodes.usage,
  );
}
