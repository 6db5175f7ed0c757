import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { messageOf } from "../failure.js";
import type { Logger } from "../launcher/logger.js";
import { ApiError } from "./api-error.js";
import { isLoopback, mayEnter } from "./auth.js";

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

/** Answers with JSON. */
export function sendJson(response: ServerResponse, body: object, headers: Readonly<Record<string, string>> = {}): void {
  send(response, 200, "application/json", JSON.stringify(body), headers);
}

/** Answers with a text of some type. */
export function send(
  response: ServerResponse,
  status: number,
  type: string,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(text), ...headers });
  response.end(text);
}

/**
 * Finds who answers a request. Whatever is in no route is refused, and so is everybody without the key, unless the route is open.
 * A page of another site is refused too, and without a key every name but those of this machine, so that no such page comes by DNS.
 */
export class Router {
  constructor(
    readonly routes: readonly Route[],
    private readonly key: string | undefined,
    private readonly logger: Logger,
  ) {}

  /** Answers; never throws. */
  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const id = `req_${randomBytes(12).toString("hex")}`;
    response.setHeader("x-request-id", id);
    response.setHeader("x-content-type-options", "nosniff");
    response.setHeader("cache-control", "no-store");
    try {
      await this.#route(request, response);
    } catch (error) {
      const known = error instanceof ApiError;
      if (!known) this.logger.error(`${id}: ${request.method} failed: ${messageOf(error)}`);
      if (response.headersSent) response.destroy();
      else sendError(request, response, known ? error : internal());
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = urlOf(request.url ?? "", "http://localhost");
    if (!url) throw new ApiError(400, "invalid_url", "The address cannot be read.");
    const method = request.method === "HEAD" ? "GET" : request.method;
    const matching = this.routes.flatMap((route) => {
      const id = idIn(route.path, url.pathname);
      return id === undefined ? [] : [{ route, id }];
    });
    const found = matching.find(({ route }) => route.method === method);
    if (found?.route.open !== true) this.#admit(request);
    if (!found) throw unknown(url.pathname, matching);
    await found.route.handle({ request, response, id: found.id, query: queryOf(url) });
  }

  #admit({ headers }: IncomingMessage): void {
    const host = urlOf(`http://${headers.host ?? ""}`);
    if (headers.origin !== undefined && urlOf(headers.origin)?.host !== host?.host) {
      throw new ApiError(403, "foreign_origin", "A page of another site may not send this.");
    }
    if (!mayEnter(this.key, headers.authorization)) {
      const challenge = { headers: { "www-authenticate": "Bearer" } };
      throw new ApiError(
        401,
        "invalid_api_key",
        "The key is missing or wrong: send Authorization: Bearer KEY.",
        challenge,
      );
    }
    if (this.key === undefined && !isLoopback(host?.hostname ?? "")) {
      throw new ApiError(403, "foreign_host", "Without a key this server answers only to localhost.");
    }
  }
}

function sendError(request: IncomingMessage, response: ServerResponse, error: ApiError): void {
  // A body that nobody reads would be taken for the next request.
  const unread = request.complete ? {} : { connection: "close" };
  send(response, error.status, "application/json", JSON.stringify(error.body), { ...error.headers, ...unread });
}

function internal(): ApiError {
  return new ApiError(500, "internal_error", "The server has made a mistake. Its log says more.");
}

function unknown(path: string, matching: readonly { route: Route }[]): ApiError {
  if (matching.length === 0) return new ApiError(404, "not_found", `There is nothing at ${path.slice(0, 200)}.`);
  const allow = matching.map(({ route }) => route.method).join(", ");
  return new ApiError(405, "method_not_allowed", `Use ${allow} here.`, { headers: { allow } });
}

/** @returns what `{id}` stands for, "" in a route without it, undefined where the path is another. */
function idIn(route: string, path: string): string | undefined {
  const [before = "", after] = route.split("{id}");
  if (after === undefined) return path === route ? "" : undefined;
  if (!path.startsWith(before) || !path.endsWith(after)) return undefined;
  const id = path.slice(before.length, path.length - after.length);
  return /^[\w-]{1,100}$/.test(id) ? id : undefined;
}

function queryOf(url: URL): Record<string, string> {
  return Object.fromEntries(url.searchParams);
}

function urlOf(text: string, base?: string): URL | undefined {
  return URL.canParse(text, base) ? new URL(text, base) : undefined;
}
