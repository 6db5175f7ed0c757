import { rename, rm, stat, statfs, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { downloadFile, HubApiError, listFiles, modelInfo } from "@huggingface/hub";
import { fileFailure } from "../../formats/file-failure.js";
import { makeFolder } from "../../formats/folder.js";
import { DitrunError, exitCodes, messageOf } from "../../protocol/failure.js";
import { repositoryFolder } from "./hub-cache.js";
import { type Expected, fetchVerified } from "./verified-file.js";

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
}

/** Weights, configurations and tokenizers; pictures and texts of a repository are not needed. */
const wanted = /\.(?:json|safetensors|pth|model)$/;

interface RemoteFile extends Expected {
  readonly path: string;
}

/**
 * Downloads a model repository into a Hugging Face cache, laid out as every other tool expects it, and returns the folder
 * of its snapshot. Files that are there are kept, files that were cut off are resumed, and each is checked by size and hash
 * before it gets its name; the branch points to the snapshot only when all of it is there.
 * Throws DitrunError if the hub refuses, the network stays down, the disk is too small, or a hash is wrong.
 */
export async function downloadRepository(request: DownloadRequest): Promise<string> {
  const { repository, cache, revision = "main", endpoint, token, onProgress } = request;
  const hub = {
    ...(endpoint ? { hubUrl: endpoint.replace(/\/+$/, "") } : {}),
    ...(token ? { accessToken: token } : {}),
  };
  const address = endpoint ?? "https://huggingface.co";
  if (!URL.canParse(address) || !/^https?:$/.test(new URL(address).protocol)) {
    throw new DitrunError(`HF_ENDPOINT is "${address}"; it must be a web address, such as https://huggingface.co.`);
  }
  const asked = async <T>(action: () => Promise<T>): Promise<T> => {
    try {
      return await action();
    } catch (error) {
      throw refusal(error, repository, address);
    }
  };

  const { sha } = await asked(() => modelInfo({ ...hub, name: repository, revision, additionalFields: ["sha"] }));
  const files = await asked(() => listWanted({ ...hub, repo: repository, revision: sha }));
  if (files.length === 0)
    throw new DitrunError(`The repository ${repository} has no weights, so there is nothing to download.`);

  const folder = repositoryFolder(cache, repository);
  const snapshot = join(folder, "snapshots", sha);
  const present = await Promise.all(files.map((file) => bytesPresent(folder, file)));
  const totalBytes = files.reduce((sum, file) => sum + file.size, 0);
  let doneBytes = present.reduce((sum, bytes) => sum + bytes, 0);
  await onDisk(folder, async () => makeFolder(join(folder, "blobs")));
  await checkSpace(folder, totalBytes - doneBytes);

  for (const file of files) {
    const blob = join(folder, "blobs", file.oid);
    if (!(await hasSize(blob, file.size)))
      await fetchVerified({
        target: blob,
        expected: file,
        label: `${repository}/${file.path}`,
        open: () =>
          openRemote({ ...hub, repo: repository, path: file.path, revision: sha }).catch((error: unknown) => {
            throw isFinal(error) ? refusal(error, repository, address) : error;
          }),
        onBytes: (bytes) => {
          doneBytes += bytes;
          onProgress?.({ file: file.path, doneBytes, totalBytes });
        },
      });
    await onDisk(folder, () => link(blob, join(snapshot, file.path)));
  }
  const ref = join(folder, "refs", revision);
  await onDisk(folder, async () => {
    makeFolder(dirname(ref));
    await writeFile(`${ref}.tmp`, sha);
    await rename(`${ref}.tmp`, ref);
  });
  return snapshot;
}

async function listWanted(params: Parameters<typeof listFiles>[0]): Promise<RemoteFile[]> {
  const files: RemoteFile[] = [];
  for await (const { type, path, size, oid, lfs } of listFiles({ ...params, recursive: true })) {
    if (type !== "file" || !wanted.test(path)) continue;
    // The path comes from the server and becomes a path here.
    const safe = path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
    const id = lfs?.oid ?? oid;
    if (!safe || id === undefined || !/^[0-9a-f]{40}(?:[0-9a-f]{24})?$/.test(id))
      throw new DitrunError(`The hub lists the file ${path} with the id ${id ?? "none"}, which cannot be right.`);
    files.push({ path, size: lfs?.size ?? size, oid: id });
  }
  return files;
}

async function openRemote(params: Parameters<typeof downloadFile>[0]): Promise<Blob> {
  const blob = await downloadFile(params);
  if (blob === null) throw new DitrunError(`The hub listed the file ${params.path}, but does not have it.`);
  return blob;
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
      `${folder} has ${gigabytes(bavail * bsize)} free, but the download needs ${gigabytes(needed)} more; free some space, or set HF_HOME to another disk.`,
      exitCodes.environment,
    );
}

/** A relative link, as the cache's other users make them, so that the cache can be moved. */
async function link(blob: string, path: string): Promise<void> {
  makeFolder(dirname(path));
  await rm(path, { force: true });
  await symlink(relative(dirname(path), blob), path);
}

async function onDisk<T>(folder: string, action: () => Promise<T>): Promise<T> {
  return action().catch((error: unknown) => {
    throw new DitrunError(`Cannot write into the Hugging Face cache ${folder}: ${fileFailure(error)}.`);
  });
}

/** True if asking again cannot help: the hub has answered, and not that it is busy or broken. */
function isFinal(error: unknown): boolean {
  if (!(error instanceof HubApiError)) return error instanceof DitrunError;
  return error.statusCode < 500 && error.statusCode !== 408 && error.statusCode !== 429;
}

/** A sentence for what the hub or the network answered. */
function refusal(error: unknown, repository: string, endpoint: string): DitrunError {
  if (error instanceof DitrunError) return error;
  const start = `Cannot download ${repository} from ${endpoint}`;
  if (error instanceof HubApiError) {
    const { statusCode } = error;
    const hint =
      statusCode === 401 || statusCode === 403
        ? "set HF_TOKEN to a token that may read it"
        : statusCode === 404
          ? "check the name and HF_ENDPOINT"
          : "try again later";
    return new DitrunError(`${start}: the server answered ${statusCode}; ${hint}.`, exitCodes.environment);
  }
  const cause = error instanceof Error && error.cause !== undefined ? messageOf(error.cause) : "";
  return new DitrunError(`${start}: ${messageOf(error)}${cause ? ` (${cause})` : ""}.`, exitCodes.environment);
}
