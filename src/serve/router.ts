import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { messageOf } from "../failure.js";
import type { Logger } from "../launcher/logger.js";
import { ApiError, storageError } from "./api-error.js";
import { doorFor, isLoopback } from "./auth.js";

/** One request and its answer. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What `{id}` of the route stands for. */
  readonly id: string;
  readonly query: Readonly<Record<string, string>>;
}

export interface Route {
  readonly method: "GET" | "POST" | "DELETE";
  /** As `/v1/videos/{id}`. */
  readonly path: string;
  /** Nobody needs a key. */
  readonly open?: boolean;
  handle(exchange: Exchange): Promise<void> | void;
}

/** Answers with JSON. @param body text is JSON already. */
export function sendJson(
  response: ServerResponse,
  body: object | string,
  headers?: Readonly<Record<string, string>>,
): void {
  send(response, 200, "application/json", typeof body === "string" ? body : JSON.stringify(body), headers);
}

/** Answers with a text of some type. */
export function send(
  response: ServerResponse,
  status: number,
  type: string,
  text: string,
  headers?: Readonly<Record<string, string>>,
): void {
  response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(text), ...headers });
  response.end(text);
}

/**
 * Finds who answers a request. Whatever is in no route is refused, and so is everybody without the key, unless the route is open.
 * A page of another site is refused too, and without a key every name but those of this machine, so that no such page comes by DNS.
 * Clients that poll make it the most used part of the server: see bench/serve.ts.
 */
export class Router {
  readonly #patterns: readonly Pattern[];
  readonly #mayEnter: (header: string | undefined) => boolean;
  /** Ids are this, which no other server has, and a number. */
  readonly #prefix = `req_${randomBytes(8).toString("hex")}`;
  #number = 0;
  /** The last Host header that named this machine. */
  #ownHost: string | undefined;

  constructor(
    routes: readonly Route[],
    private readonly key: string | undefined,
    private readonly logger: Logger,
  ) {
    this.#patterns = routes.map(patternOf);
    this.#mayEnter = doorFor(key);
  }

  /** Answers; never throws. */
  answer(request: IncomingMessage, response: ServerResponse): void {
    this.#number += 1;
    const id = `${this.#prefix}${this.#number.toString(16).padStart(8, "0")}`;
    response.setHeader("x-request-id", id);
    response.setHeader("x-content-type-options", "nosniff");
    response.setHeader("cache-control", "no-store");
    const refuse = (error: unknown) => {
      const known = error instanceof ApiError ? error : undefined;
      if (!known) this.logger.error(`${id}: ${request.method} failed: ${messageOf(error)}`);
      if (response.headersSent) response.destroy();
      else sendError(request, response, known ?? storageError(error) ?? internal());
    };
    try {
      this.#route(request, response)?.catch(refuse);
    } catch (error) {
      refuse(error);
    }
  }

  #route(request: IncomingMessage, response: ServerResponse): Promise<void> | void {
    const { path, query } = partsOf(request.url ?? "");
    const method = request.method === "HEAD" ? "GET" : request.method;
    let found: Pattern | undefined;
    let id: string | undefined;
    for (const pattern of this.#patterns) {
      if (pattern.route.method !== method) continue;
      id = idIn(pattern, path);
      if (id === undefined) continue;
      found = pattern;
      break;
    }
    if (found?.route.open !== true) this.#admit(request);
    if (!found || id === undefined) throw this.#unknown(path);
    return found.route.handle({ request, response, id, query });
  }

  #admit({ headers }: IncomingMessage): void {
    if (headers.origin !== undefined && urlOf(headers.origin)?.host !== urlOf(`http://${headers.host ?? ""}`)?.host) {
      throw new ApiError(403, "foreign_origin", "A page of another site may not send this.");
    }
    if (!this.#mayEnter(headers.authorization)) {
      const challenge = { headers: { "www-authenticate": "Bearer" } };
      throw new ApiError(
        401,
        "invalid_api_key",
        "The key is missing or wrong: send Authorization: Bearer KEY.",
        challenge,
      );
    }
    if (this.key !== undefined || (headers.host !== undefined && headers.host === this.#ownHost)) return;
    if (!isLoopback(urlOf(`http://${headers.host ?? ""}`)?.hostname ?? "")) {
      throw new ApiError(403, "foreign_host", "Without a key this server answers only to localhost.");
    }
    this.#ownHost = headers.host;
  }

  #unknown(path: string): ApiError {
    const others = this.#patterns.filter((pattern) => idIn(pattern, path) !== undefined);
    if (others.length === 0) return new ApiError(404, "not_found", `There is nothing at ${path.slice(0, 200)}.`);
    const allow = others.map(({ route }) => route.method).join(", ");
    return new ApiError(405, "method_not_allowed", `Use ${allow} here.`, { headers: { allow } });
  }
}

/** A route's path around its `{id}`. */
interface Pattern {
  readonly route: Route;
  readonly before: string;
  /** Undefined in a path without it. */
  readonly after: string | undefined;
}

function patternOf(route: Route): Pattern {
  const [before = "", after] = route.path.split("{id}");
  return { route, before, after };
}

function sendError(request: IncomingMessage, response: ServerResponse, error: ApiError): void {
  // A body that nobody reads would be taken for the next request.
  const unread = request.complete ? {} : { connection: "close" };
  send(response, error.status, "application/json", JSON.stringify(error.body), { ...error.headers, ...unread });
}

function internal(): ApiError {
  return new ApiError(500, "internal_error", "The server has made a mistake. Its log says more.");
}

/** @returns what `{id}` of the route stands for, "" in a route without it, undefined where the path is another. */
function idIn({ before, after }: Pattern, path: string): string | undefined {
  if (after === undefined) return path === before ? "" : undefined;
  if (!path.startsWith(before) || !path.endsWith(after)) return undefined;
  const id = path.slice(before.length, path.length - after.length);
  return /^[\w-]{1,100}$/.test(id) ? id : undefined;
}

const noQuery: Readonly<Record<string, string>> = {};

/** A request's target: as a path, or whole as proxies send it. */
function partsOf(target: string): { path: string; query: Readonly<Record<string, string>> } {
  if (/^\/[\w/-]*$/.test(target)) return { path: target, query: noQuery };
  const url = urlOf(target, "http://localhost");
  if (!url) throw new ApiError(400, "invalid_url", "The address cannot be read.");
  return { path: url.pathname, query: Object.fromEntries(url.searchParams) };
}

function urlOf(text: string, base?: string): URL | undefined {
  return URL.canParse(text, base) ? new URL(text, base) : undefined;
}
