import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";

/** The variables of a process's environment that this reads. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The Hugging Face cache: HF_HUB_CACHE, else HF_HOME/hub, else below XDG_CACHE_HOME or ~/.cache.
 * An empty variable counts as none, and `~` at the start is the home folder.
 * Source: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
 */
export function hubCache(environment: Environment): string {
  const folder = (name: string) => environment[name]?.replace(/^~(?=\/|$)/, homedir()) || undefined;
  const home = folder("HF_HOME") ?? join(folder("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface");
  return folder("HF_HUB_CACHE") ?? folder("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub");
}

/** The folder of one model repository (`owner/name`) in the cache: blobs, refs and snapshots. */
export function repositoryFolder(cache: string, repository: string): string {
  return join(cache, `models--${repository.replaceAll("/", "--")}`);
}

/** The folder of the snapshot that a branch or tag points to, or undefined if the cache has none. */
export async function cachedSnapshot(
  cache: string,
  repository: string,
  revision = "main",
): Promise<string | undefined> {
  const folder = repositoryFolder(cache, repository);
  const commit = await readFile(join(folder, "refs", revision), "utf8").catch(() => undefined);
  if (commit === undefined) return undefined;
  const snapshot = join(folder, "snapshots", commit.trim());
  const found = await stat(snapshot).catch(() => undefined);
  return found?.isDirectory() ? snapshot : undefined;
}
