import { lstat, readlink, rename, stat, statfs, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { downloadFile, HubApiError } from "@huggingface/hub";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { withFileLock } from "../files/file-lock.js";
import { makeFolder } from "../files/folder.js";
import { temporaryName } from "../files/temporary.js";
import { commitOf, type Hub, listFiles, openHub, type RemoteFile, refusedWith } from "./hub-api.js";
import { repositoryFolder, repositoryName } from "./hub-cache.js";
import { fetchVerified } from "./verified-file.js";

export interface Progress {
  /** Path of the file within the repository. */
  readonly file: string;
  /** Bytes of the whole download that are on disk, those of earlier runs included. */
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface DownloadRequest {
  /** `owner/name` of a model repository. */
  readonly repository: string;
  /** The cache folder to fill. */
  readonly cache: string;
  readonly revision?: string;
  /** The hub's address; https://huggingface.co if not given. */
  readonly endpoint?: string;
  readonly token?: string;
  readonly onProgress?: (progress: Progress) => void;
  /** Called with a sentence for people. */
  readonly onNote?: (sentence: string) => void;
}

/**
 * Downloads a model repository into a Hugging Face cache, laid out as every other tool expects it, and returns the folder
 * of its snapshot. Files that are there are kept, files that were cut off are resumed, and each is checked by size and hash
 * before it gets its name; the branch points to the snapshot only when all of it is there. Of several processes that download
 * at once, huggingface_hub's among them, one fetches a file and the others wait for it.
 * Throws DitrunError if the hub refuses or lies, the network stays down, the disk is too small, or a hash is wrong.
 */
export async function downloadRepository(request: DownloadRequest): Promise<string> {
  const hub = openHub(request.endpoint, request.token);
  try {
    return await downloadFrom(hub, request);
  } finally {
    hub.close();
  }
}

async function downloadFrom(hub: Hub, request: DownloadRequest): Promise<string> {
  const { repository, cache, revision = "main", onProgress, onNote } = request;
  const commit = await commitOf(hub, repository, revision);
  const files = await listFiles(hub, repository, commit);
  if (files.length === 0)
    throw new DitrunError(
      "ERR_CHECKPOINT_MISSING",
      `The repository ${repository} has no weights, so there is nothing to download.`,
    );

  const folder = repositoryFolder(cache, repository);
  const totalBytes = files.reduce((sum, file) => sum + file.size, 0);
  let doneBytes = 0;
  const present = new Map<RemoteFile, number>();
  for (const file of files) present.set(file, await bytesPresent(folder, file));
  for (const bytes of present.values()) doneBytes += bytes;
  await onDisk(folder, async () => makeFolder(join(folder, "blobs")));
  await checkSpace(folder, totalBytes - doneBytes);

  for (const file of files) {
    const blob = join(folder, "blobs", file.oid);
    if (!(await hasSize(blob, file.size))) {
      let counted = present.get(file) ?? 0;
      const count = (bytes: number) => {
        doneBytes += bytes - counted;
        counted = bytes;
        onProgress?.({ file: file.path, doneBytes, totalBytes });
      };
      const lock = join(cache, ".locks", repositoryName(repository), `${file.oid}.lock`);
      const wait = () => onNote?.(`Another process is downloading ${file.path}: waiting for it.`);
      const fetchAlone = async (alone: boolean) => {
        if (await hasSize(blob, file.size)) return count(file.size);
        await fetchVerified({
          target: blob,
          expected: file,
          resumes: alone,
          label: `${repository}/${file.path}`,
          open: () => openRemote(hub, repository, commit, file.path),
          onBytes: count,
        });
      };
      await onDisk(folder, () => withFileLock(lock, wait, fetchAlone));
    }
    await onDisk(folder, () => link(blob, join(folder, "snapshots", commit, file.path)));
  }
  await onDisk(folder, () => write(join(folder, "refs", revision), commit));
  return join(folder, "snapshots", commit);
}

/** A file's bytes, fetched as its slices are asked for. @throws DitrunError for what the hub will refuse again. */
async function openRemote(hub: Hub, repository: string, commit: string, path: string): Promise<Blob> {
  try {
    const repo = { type: "model", name: repository } as const;
    const blob = await downloadFile({ repo, path, revision: commit, hubUrl: hub.address, fetch: hub.fetch });
    if (blob !== null) return blob;
  } catch (error) {
    const status = error instanceof HubApiError ? error.statusCode : undefined;
    // Asking again helps where the hub is busy or broken.
    if (status === undefined || status >= 500 || status === 408 || status === 429) throw error;
    throw refusedWith(status, repository, hub.address);
  }
  throw new DitrunError("ERR_HUB_ANSWER", `The hub listed the file ${path}, but does not have it.`);
}

/** Bytes of a file that are on disk already: all of it, or what an earlier run got. */
async function bytesPresent(folder: string, file: RemoteFile): Promise<number> {
  const blob = join(folder, "blobs", file.oid);
  if (await hasSize(blob, file.size)) return file.size;
  const incomplete = await stat(`${blob}.incomplete`).catch(() => undefined);
  return incomplete !== undefined && incomplete.size <= file.size ? incomplete.size : 0;
}

async function hasSize(path: string, size: number): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.size === size;
}

async function checkSpace(folder: string, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
  if (needed > bavail * bsize)
    throw new DitrunError(
      "ERR_DISK_SPACE",
      `${folder} has ${gigabytes(bavail * bsize)} free, but the download needs ${gigabytes(needed)} more; free some space, or set HF_HOME to another disk.`,
    );
}

/** A relative link, as the cache's other users make them, so that the cache can be moved. There is one at every moment. */
async function link(blob: string, path: string): Promise<void> {
  makeFolder(dirname(path));
  const target = relative(dirname(path), blob);
  if ((await lstat(path).catch(() => undefined))?.isSymbolicLink() && (await readlink(path)) === target) return;
  const name = await temporaryName(path);
  await symlink(target, name);
  await rename(name, path);
}

/** Writes a small file at once: no reader sees half of it. */
async function write(path: string, text: string): Promise<void> {
  makeFolder(dirname(path));
  const name = await temporaryName(path);
  await writeFile(name, text, { flag: "wx" });
  await rename(name, path);
}

/** @throws DitrunError for what the file system refuses, and what `action` throws of that kind. */
async function onDisk<T>(folder: string, action: () => Promise<T>): Promise<T> {
  return action().catch((error: unknown) => {
    if (error instanceof DitrunError) throw error;
    throw new DitrunError(
      "ERR_FILE_WRITE",
      `Cannot write into the Hugging Face cache ${folder}: ${fileFailure(error)}.`,
    );
  });
}
