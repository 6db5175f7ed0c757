import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { DitrunError } from "../failure.js";
import { homeFolder } from "../files/home-folder.js";

/** The variables of a process's environment that this reads. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** A folder that a variable names; an empty variable counts as none, and `~` at the start is the home folder. */
/** The variables of this process. */
export function hubEnvironment(): Environment {
  return process.env;
}

function folderOf(environment: Environment, name: string): string | undefined {
  return environment[name]?.replace(/^~(?=\/|$)/, () => homeFolder("HF_HOME")) || undefined;
}

/** The user's cache: XDG_CACHE_HOME, else ~/.cache. @throws DitrunError when there is no home folder. */
export function cacheFolder(environment: Environment): string {
  return folderOf(environment, "XDG_CACHE_HOME") ?? join(homeFolder("XDG_CACHE_HOME"), ".cache");
}

/** HF_HOME, else below XDG_CACHE_HOME or ~/.cache. */
function hubHome(environment: Environment): string {
  const cache = () => folderOf(environment, "XDG_CACHE_HOME") ?? join(homeFolder("HF_HOME"), ".cache");
  return folderOf(environment, "HF_HOME") ?? join(cache(), "huggingface");
}

/**
 * The Hugging Face cache: HF_HUB_CACHE, else `hub` in its home.
 * Source: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
 * @throws DitrunError when no variable names it and the user has no home folder.
 */
export function hubCache(environment: Environment): string {
  return (
    folderOf(environment, "HF_HUB_CACHE") ??
    folderOf(environment, "HUGGINGFACE_HUB_CACHE") ??
    join(hubHome(environment), "hub")
  );
}

/** True if the variables forbid to ask the hub. */
export function isOffline({ HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE }: Environment): boolean {
  return ["1", "ON", "YES", "TRUE"].includes((HF_HUB_OFFLINE || TRANSFORMERS_OFFLINE || "").toUpperCase());
}

/** HF_TOKEN, else what `hf auth login` has stored. @throws DitrunError for one that no request could carry. */
export async function hubToken(environment: Environment): Promise<string | undefined> {
  const { HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_HUB_DISABLE_IMPLICIT_TOKEN } = environment;
  let token = (HF_TOKEN || HUGGING_FACE_HUB_TOKEN || "").trim();
  let source = HF_TOKEN ? "HF_TOKEN" : "HUGGING_FACE_HUB_TOKEN";
  if (token === "" && !/^(?:1|on|yes|true)$/i.test(HF_HUB_DISABLE_IMPLICIT_TOKEN ?? "")) {
    source = folderOf(environment, "HF_TOKEN_PATH") ?? storedToken(environment);
    token = source === "" ? "" : (await readFile(source, "utf8").catch(() => "")).trim();
  }
  if (/^[\x21-\x7e]*$/.test(token)) return token || undefined;
  throw new DitrunError("ERR_HUB_TOKEN", `${source} holds no token: a token has letters, digits and signs only.`);
}

/** Where `hf auth login` puts the token; "" where there is no home folder. */
function storedToken(environment: Environment): string {
  try {
    return join(hubHome(environment), "token");
  } catch {
    return "";
  }
}

/** The name of a model repository (`owner/name`) in the cache and among its locks. */
export function repositoryName(repository: string): string {
  return `models--${repository.replaceAll("/", "--")}`;
}

/** The folder of one model repository (`owner/name`) in the cache: blobs, refs and snapshots. */
export function repositoryFolder(cache: string, repository: string): string {
  return join(cache, repositoryName(repository));
}

/** What a commit's name can be. */
export function isCommit(text: string): boolean {
  return /^[0-9a-f]{40}$/.test(text);
}

export interface Snapshots {
  /** True if they are the one that the branch points to. */
  readonly pointed: boolean;
  readonly snapshots: readonly string[];
}

/**
 * The folders of a repository's snapshots: the one that a branch or tag points to, else all that are there, since a snapshot
 * that was fetched by its commit or copied has no branch.
 * @param folder of the repository, in the cache or anywhere.
 */
export async function cachedSnapshots(folder: string, revision = "main"): Promise<Snapshots> {
  const parent = join(folder, "snapshots");
  const commit = (await readFile(join(folder, "refs", revision), "utf8").catch(() => "")).trim();
  const pointed = isCommit(commit);
  const names = pointed ? [commit] : (await readdir(parent).catch((): string[] => [])).filter(isCommit);
  const snapshots: string[] = [];
  for (const name of names) {
    const path = join(parent, name);
    if ((await stat(path).catch(() => undefined))?.isDirectory()) snapshots.push(path);
  }
  return { pointed, snapshots };
}
