import { join } from "node:path";
import { DitrunError } from "../../failure.js";
import { downloadRepository, type Progress } from "../../hub/download.js";
import {
  cachedSnapshots,
  type Environment,
  hubCache,
  hubToken,
  isOffline,
  repositoryFolder,
} from "../../hub/hub-cache.js";
import { refuseWrong, removeWrong, wrongFiles } from "../../hub/verify.js";
import { CheckpointFolder, detectLayout, type WanCheckpoint } from "./checkpoint-layout.js";

export interface CheckpointRequest {
  /** The model as the user names it, for messages: `1.4B`. */
  readonly model: string;
  /** Repositories that hold it, the one to download first. */
  readonly repositories: readonly [string, ...string[]];
  /** --download: fetch into the cache what is not there. */
  readonly download: boolean;
  /** --verify: hash every file of it. */
  readonly verify?: boolean;
  readonly environment: Environment;
  readonly onProgress?: (progress: Progress) => void;
  /** Called with a sentence for people. */
  readonly onNote?: (sentence: string) => void;
}

/**
 * Finds a Wan checkpoint in the Hugging Face cache, or downloads it if that is asked for.
 * Throws DitrunError with the exact command that gets one if there is none, or if one of its files is not what its hash says.
 */
export async function locateCheckpoint(request: CheckpointRequest): Promise<WanCheckpoint> {
  const { model, repositories, download, verify = false, environment, onNote } = request;
  const cache = hubCache(environment);
  const command = `ditrun wan --model ${model} generate --download --prompt "…"`;

  let incomplete: DitrunError | undefined;
  for (const repository of repositories) {
    const found = await completeSnapshot(cache, repository, onNote);
    if (found instanceof DitrunError) incomplete ??= found;
    if (found === undefined || found instanceof DitrunError) continue;
    if (!verify) return found;
    const wrong = await wrongFiles(found.directory, (path) => onNote?.(`Verifying ${path}.`));
    if (!download) refuseWrong(found.directory, wrong, "fetch them anew with --verify --download");
    if (wrong.length === 0) return found;
    onNote?.(`Fetching anew what is not what its hash says: ${wrong.map(({ path }) => path).join(", ")}.`);
    refuseOffline(environment, repository);
    await removeWrong(wrong);
    return detectLayout(await fetchRepository(request, cache, repository));
  }
  // Each file that a download adds is verified as it comes.
  if (download) return detectLayout(await fetchRepository(request, cache, repositories[0]));
  throw new DitrunError(
    "ERR_CHECKPOINT_MISSING",
    incomplete === undefined
      ? `No checkpoint of Wan ${model} is in the Hugging Face cache ${cache}; get ${repositories[0]} with \`${command}\`, or name a folder that has one with --ckpt-dir.`
      : `${incomplete.message.replace(/(?:; download it again)?\.$/, "")}; complete it with \`${command}\`.`,
  );
}

/** The checkpoint that a repository has in the cache; an error when what is there is not whole, undefined when nothing is. */
async function completeSnapshot(
  cache: string,
  repository: string,
  onNote: CheckpointRequest["onNote"],
): Promise<WanCheckpoint | DitrunError | undefined> {
  const folder = repositoryFolder(cache, repository);
  const { pointed, snapshots } = await cachedSnapshots(folder);
  const whole: WanCheckpoint[] = [];
  let incomplete: DitrunError | undefined;
  for (const snapshot of snapshots) {
    try {
      whole.push(await detectLayout(snapshot));
    } catch (error) {
      if (!(error instanceof DitrunError)) throw error;
      incomplete ??= error;
    }
  }
  const [found] = whole;
  if (found === undefined) return incomplete;
  if (whole.length > 1)
    return new DitrunError(
      "ERR_CHECKPOINT_AMBIGUOUS",
      `${folder} has ${whole.length} complete snapshots and no refs/main that chooses one: name one with --ckpt-dir.`,
    );
  if (!pointed) onNote?.(`${folder} has no refs/main: its only complete snapshot is taken, ${found.directory}.`);
  return found;
}

function refuseOffline(environment: Environment, repository: string): void {
  if (!isOffline(environment)) return;
  throw new DitrunError(
    "ERR_HUB_OFFLINE",
    `HF_HUB_OFFLINE is set, so --download asks no network for ${repository}: unset it, or name a folder that has the checkpoint with --ckpt-dir.`,
  );
}

async function fetchRepository(
  { environment, onProgress, onNote }: CheckpointRequest,
  cache: string,
  repository: string,
): Promise<string> {
  refuseOffline(environment, repository);
  const { HF_ENDPOINT } = environment;
  const token = await hubToken(environment);
  return downloadRepository({
    repository,
    cache,
    ...(HF_ENDPOINT ? { endpoint: HF_ENDPOINT } : {}),
    ...(token ? { token } : {}),
    ...(onProgress ? { onProgress } : {}),
    ...(onNote ? { onNote } : {}),
  });
}

/** The folder of the repository to download first, with all of its files. @throws DitrunError as downloadRepository. */
export async function downloadCheckpoint(request: CheckpointRequest): Promise<string> {
  return fetchRepository(request, hubCache(request.environment), request.repositories[0]);
}

/**
 * A Wan checkpoint in a folder, which may be a repository's in a Hugging Face cache (`models--…`): its snapshot is taken.
 * @param verify hash every file of it. @throws DitrunError when it is none, or one of its files is not what its hash says.
 */
export async function openFolder(
  directory: string,
  verify = false,
  onNote?: (sentence: string) => void,
): Promise<CheckpointFolder> {
  const { snapshots } = await cachedSnapshots(directory);
  const [snapshot = directory, ...more] = snapshots;
  if (more.length > 0)
    throw new DitrunError(
      "ERR_CHECKPOINT_AMBIGUOUS",
      `${directory} has ${snapshots.length} snapshots and no refs/main that chooses one: name ${join(directory, "snapshots/COMMIT")}.`,
    );
  const found = await CheckpointFolder.open(snapshot);
  if (verify) {
    const wrong = await wrongFiles(snapshot, (path) => onNote?.(`Verifying ${path}.`));
    refuseWrong(snapshot, wrong, "download it again");
  }
  return found;
}

/** The same with every part of it. @throws DitrunError also when one is missing. */
export async function openCheckpoint(
  directory: string,
  verify = false,
  onNote?: (sentence: string) => void,
): Promise<WanCheckpoint> {
  return detectLayout((await openFolder(directory, verify, onNote)).directory);
}
