import { z } from "zod";
import { DitrunError, messageOf } from "../failure.js";
import { isPlain, shown } from "../formats/shown.js";
import { isCommit } from "./hub-cache.js";

/** A hub, and how it is asked. Nothing that it answers is believed before it is checked. */
export interface Hub {
  /** Its web address, without a slash at the end. */
  readonly address: string;
  /** The fetch of every request: it sends the token to the hub, and to nobody else. */
  readonly fetch: typeof fetch;
  /** Ends what is still being sent: an answer that nobody reads to its end would keep the process alive. */
  close(): void;
}

/** A file of a repository at one commit. */
export interface RemoteFile {
  /** Relative, without `..` or control characters. */
  readonly path: string;
  readonly size: number;
  /** Its SHA-256 (64 digits) or its git blob id (40 digits). */
  readonly oid: string;
}

/** Weights, configurations and tokenizers; pictures and texts of a repository are not needed. */
const wanted = /\.(?:json|safetensors|pth|model)$/;

/** Far above what a hub answers. */
const maxAnswerBytes = 32 * 2 ** 20;
const maxPages = 200;
const maxFiles = 10_000;
const answerMs = 120_000;

/** @throws DitrunError for an address that is none of the web. */
export function openHub(endpoint = "https://huggingface.co", token?: string): Hub {
  if (!URL.canParse(endpoint) || !/^https?:$/.test(new URL(endpoint).protocol)) {
    throw new DitrunError(
      "ERR_HUB_ENDPOINT",
      `HF_ENDPOINT is "${shown(endpoint)}"; it must be a web address, such as https://huggingface.co.`,
    );
  }
  const { origin, protocol } = new URL(endpoint);
  const check = (address: string): URL => {
    const url = new URL(address);
    if (url.protocol === protocol || url.protocol === "https:") return url;
    throw new DitrunError(
      "ERR_HUB_ANSWER",
      `The hub at ${endpoint} leads to ${shown(url.origin)}, which is not ${protocol.slice(0, -1)}.`,
    );
  };
  const closing = new AbortController();
  return {
    close: () => closing.abort(),
    address: endpoint.replace(/\/+$/, ""),
    fetch: async (input, init) => {
      const url = check(input instanceof Request ? input.url : String(input));
      const headers = new Headers(init?.headers);
      if (token !== undefined && url.origin === origin) headers.set("authorization", `Bearer ${token}`);
      // A redirect to another origin loses the header: https://fetch.spec.whatwg.org/#http-redirect-fetch
      const signal = AbortSignal.any([closing.signal, ...(init?.signal ? [init.signal] : [])]);
      const response = await fetch(input, { ...init, headers, signal });
      if (response.url !== "") check(response.url);
      return response;
    },
  };
}

/** The commit that a branch or tag points to. @throws DitrunError when the hub refuses, or answers with something else. */
export async function commitOf(hub: Hub, repository: string, revision: string): Promise<string> {
  const url = `${hub.address}/api/models/${repository}/revision/${encodeURIComponent(revision)}`;
  const { document } = await ask(hub, repository, url);
  const commit = z.looseObject({ sha: z.string() }).safeParse(document).data?.sha;
  if (commit !== undefined && isCommit(commit)) return commit;
  throw new DitrunError(
    "ERR_HUB_ANSWER",
    `The hub at ${hub.address} names no commit of ${repository} (${commit === undefined ? "its answer has no sha" : `its sha is "${shown(commit)}"`}); check HF_ENDPOINT.`,
  );
}

const entrySchema = z.looseObject({
  type: z.string(),
  path: z.string(),
  size: z.unknown().optional(),
  oid: z.string().optional(),
  lfs: z.looseObject({ oid: z.string(), size: z.unknown() }).optional(),
});
const sizeSchema = z.int().min(0);

/** The files of a repository that a checkpoint needs. @throws DitrunError as commitOf does, and for a list that cannot be right. */
export async function listFiles(hub: Hub, repository: string, commit: string): Promise<RemoteFile[]> {
  const files = new Map<string, RemoteFile>();
  let next: string | undefined = `${hub.address}/api/models/${repository}/tree/${commit}?recursive=true`;
  for (let page = 0; next !== undefined; page++) {
    if (page === maxPages)
      throw new DitrunError(
        "ERR_HUB_ANSWER",
        `The hub at ${hub.address} lists ${repository} on more than ${maxPages} pages.`,
      );
    const answer = await ask(hub, repository, next);
    const entries = z.array(entrySchema).safeParse(answer.document);
    if (!entries.success)
      throw new DitrunError(
        "ERR_HUB_ANSWER",
        `The hub at ${hub.address} answers with no list of the files of ${repository}.`,
      );
    for (const entry of entries.data) {
      if (entry.type !== "file" || !wanted.test(entry.path)) continue;
      const file = checkedFile(entry);
      if (files.has(file.path) || files.size === maxFiles)
        throw unlikely(file.path, "listed twice, or one of too many");
      files.set(file.path, file);
    }
    next = answer.next;
  }
  for (const path of files.keys())
    for (let end = path.indexOf("/"); end !== -1; end = path.indexOf("/", end + 1))
      if (files.has(path.slice(0, end))) throw unlikely(path, "below another file");
  return [...files.values()];
}

/** The path becomes a path here, and the id a file's name. */
function checkedFile({ path, size, oid, lfs }: z.infer<typeof entrySchema>): RemoteFile {
  const parts = path.split("/");
  const safe = isPlain(path) && parts.every((part) => part !== "" && part !== "." && part !== "..");
  if (!safe) throw unlikely(path, "a path out of the repository");
  const id = lfs?.oid ?? oid;
  if (id === undefined || !/^[0-9a-f]{40}(?:[0-9a-f]{24})?$/.test(id))
    throw unlikely(path, `of the id ${id === undefined ? "none" : shown(id)}`);
  const bytes = sizeSchema.safeParse(lfs?.size ?? size);
  if (!bytes.success) throw unlikely(path, "without a size");
  return { path, size: bytes.data, oid: id };
}

function unlikely(path: string, why: string): DitrunError {
  return new DitrunError("ERR_HUB_ANSWER", `The hub lists the file ${shown(path)} (${why}), which cannot be right.`);
}

/** One answer in JSON, and the address of its next page. */
async function ask(
  hub: Hub,
  repository: string,
  url: string,
): Promise<{ document: unknown; next: string | undefined }> {
  let text: string;
  let link: string | null;
  try {
    const response = await hub.fetch(url, {
      headers: { accept: "application/json" },
      signal: AbortSignal.timeout(answerMs),
    });
    if (!response.ok) {
      await response.body?.cancel();
      throw refusedWith(response.status, repository, hub.address);
    }
    text = await boundedText(response, hub.address);
    link = response.headers.get("link");
  } catch (error) {
    throw unreachable(error, repository, hub.address);
  }
  try {
    return { document: JSON.parse(text), next: nextPage(link, url, hub.address) };
  } catch (error) {
    if (error instanceof DitrunError) throw error;
    throw new DitrunError(
      "ERR_HUB_ANSWER",
      `The hub at ${hub.address} did not answer in JSON about ${repository}; check HF_ENDPOINT.`,
    );
  }
}

async function boundedText(response: Response, address: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > maxAnswerBytes)
      throw new DitrunError("ERR_HUB_ANSWER", `The hub at ${address} sends more than ${maxAnswerBytes / 2 ** 20} MiB.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Format: https://www.rfc-editor.org/rfc/rfc8288 */
function nextPage(link: string | null, from: string, address: string): string | undefined {
  const [, target] = /<([^>]+)>\s*;[^,]*\brel="?next"?/.exec(link ?? "") ?? [];
  if (target === undefined) return undefined;
  const url = URL.canParse(target, from) ? new URL(target, from) : undefined;
  if (url?.origin === new URL(address).origin) return url.href;
  throw new DitrunError(
    "ERR_HUB_ANSWER",
    `The hub at ${address} has its list go on at ${shown(target)}, another host, which is not asked.`,
  );
}

/** A sentence for a status that the hub or a host of its files answered. */
export function refusedWith(status: number, repository: string, address: string): DitrunError {
  const hint =
    status === 401 || status === 403
      ? "set HF_TOKEN to a token that may read it"
      : status === 404
        ? "check the name and HF_ENDPOINT"
        : "try again later";
  return new DitrunError(
    "ERR_HUB_REFUSED",
    `Cannot download ${repository} from ${address}: the server answered ${status}; ${hint}.`,
  );
}

/** A sentence for what kept a request from being answered. */
export function unreachable(error: unknown, repository: string, address: string): DitrunError {
  if (error instanceof DitrunError) return error;
  const cause = error instanceof Error && error.cause !== undefined ? ` (${messageOf(error.cause)})` : "";
  const mirror = "if this machine has no network, set HF_ENDPOINT to a mirror, or name a copy with --ckpt-dir";
  return new DitrunError(
    "ERR_HUB_UNREACHABLE",
    `Cannot download ${repository} from ${address}: ${shown(messageOf(error) + cause)}; ${mirror}.`,
  );
}
