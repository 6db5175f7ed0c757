import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { join, relative } from "node:path";

interface Listing {
  readonly type: "file" | "directory";
  readonly path: string;
  readonly size: number;
  readonly oid: string;
  readonly lfs?: { readonly oid: string; readonly size: number; readonly pointerSize: number };
}

export interface OwnAnswer {
  readonly status?: number;
  readonly body?: unknown;
  /** In place of `body`: no JSON. */
  readonly raw?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sends this text over and over, until nobody listens. */
  readonly endless?: string;
}

/** A local server that answers as the Hugging Face hub does for one model repository. */
export interface TestHub {
  readonly endpoint: string;
  readonly commit: string;
  /** What was asked, in order. */
  readonly requests: { path: string; range: string; token: string }[];
  /** Each further answer with this file's bytes is cut off after so many of them, until the list is used up. */
  cutAfter(file: string, bytes: number[]): void;
  /** This file's first byte is sent wrong; "" ends that. */
  corrupt(file: string): void;
  requireToken(token: string): void;
  addListing(entry: Listing): void;
  /** Asked first: an answer of its own, or undefined for the usual one. */
  answerWith(own: (url: URL) => OwnAnswer | undefined): void;
  /** How many are open. */
  connections(): Promise<number>;
  close(): Promise<void>;
}

const commit = "c0ffee00".repeat(5);
/** Files of at least this size are LFS files: their id is a SHA-256 instead of a git blob's. */
const lfsBytes = 100_000;

/** Serves the files of `folder`, plus a README and a picture, as the repository `name`. */
export async function startHub(name: string, folder: string): Promise<TestHub> {
  const files = new Map<string, Buffer>([
    ["README.md", Buffer.from("# a model")],
    ["assets/logo.png", Buffer.alloc(10)],
  ]);
  for (const entry of await readdir(folder, { recursive: true })) {
    const path = join(folder, entry);
    if ((await stat(path)).isFile()) files.set(relative(folder, path), await readFile(path));
  }
  const listings: Listing[] = [...files].map(([path, bytes]) => listing(path, bytes));
  listings.unshift({ type: "directory", path: "google", size: 0, oid: "1".repeat(40) });

  const requests: TestHub["requests"] = [];
  let cuts: { file: string; bytes: number[] } = { file: "", bytes: [] };
  let corrupted = "";
  let token: string | undefined;
  let own: (url: URL) => OwnAnswer | undefined = () => undefined;

  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? "", endpoint);
    requests.push({
      path: url.pathname,
      range: request.headers.range ?? "",
      token: request.headers.authorization ?? "",
    });
    const json = (status: number, body: unknown, headers: Record<string, string> = {}) =>
      response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
    const instead = own(url);
    if (instead?.endless !== undefined) {
      const send = () => {
        while (!response.destroyed && response.write(instead.endless)) {}
      };
      response.writeHead(instead.status ?? 200, instead.headers).on("drain", send);
      return send();
    }
    if (instead?.raw !== undefined) return response.writeHead(200).end(instead.raw);
    if (instead !== undefined) return json(instead.status ?? 200, instead.body, instead.headers);
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`)
      return json(401, { error: "Invalid credentials" });
    if (url.pathname === `/api/models/${name}/revision/main`)
      return json(200, { _id: "1", id: name, sha: commit, lastModified: "2026-01-01T00:00:00.000Z", likes: 0 });
    if (url.pathname === `/api/models/${name}/tree/${commit}`) {
      // Two pages, linked as the hub links them.
      const half = Math.ceil(listings.length / 2);
      if (url.searchParams.has("cursor")) return json(200, listings.slice(half));
      url.searchParams.set("cursor", "2");
      return json(200, listings.slice(0, half), { link: `<${url.href}>; rel="next"` });
    }
    const prefix = `/${name}/resolve/${commit}/`;
    const file = url.pathname.startsWith(prefix) ? url.pathname.slice(prefix.length) : "";
    const bytes = files.get(file);
    if (bytes === undefined) return json(404, { error: "Repository not found" });
    sendRange(request, response, file, bytes);
  };

  const sendRange = (request: IncomingMessage, response: ServerResponse, file: string, bytes: Buffer) => {
    const [, from = "0", to = `${bytes.byteLength - 1}`] =
      /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const part = Buffer.from(bytes.subarray(Number(from), Number(to) + 1));
    if (file === corrupted && from === "0") part.writeUInt8(part.readUInt8(0) ^ 0xff, 0);
    response.writeHead(request.headers.range ? 206 : 200, {
      etag: `"${listing(file, bytes).lfs?.oid ?? listing(file, bytes).oid}"`,
      "content-length": part.byteLength,
      ...(request.headers.range ? { "content-range": `bytes ${from}-${to}/${bytes.byteLength}` } : {}),
    });
    const cut = file === cuts.file && part.byteLength > 1 ? cuts.bytes.shift() : undefined;
    if (cut === undefined) response.end(part);
    // Let the bytes reach the other side before the connection is torn down.
    else response.write(part.subarray(0, cut), () => setTimeout(() => response.destroy(), 50));
  };

  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const endpoint = `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
  return {
    endpoint,
    commit,
    requests,
    cutAfter: (file, bytes) => {
      cuts = { file, bytes };
    },
    corrupt: (file) => {
      corrupted = file;
    },
    requireToken: (required) => {
      token = required;
    },
    addListing: (entry) => {
      listings.push(entry);
    },
    answerWith: (answer) => {
      own = answer;
    },
    connections: () =>
      new Promise((resolve, reject) =>
        server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
      ),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listing(path: string, bytes: Buffer): Listing {
  const size = bytes.byteLength;
  const oid = createHash("sha1").update(`blob ${size}\0`).update(bytes).digest("hex");
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const lfs = { oid: sha256, size, pointerSize: 134 };
  return { type: "file", path, size, oid: size < lfsBytes ? oid : "2".repeat(40), ...(size < lfsBytes ? {} : { lfs }) };
}
