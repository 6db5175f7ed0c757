import { Http } from "./http.js";
import { Videos } from "./videos.js";

export interface ClientOptions {
  /** Of the server, as `http://127.0.0.1:8000`, which it is by default. */
  readonly url?: string | undefined;
  /** Where the server has one. */
  readonly apiKey?: string | undefined;
  /** How often a call is tried again where the server is busy or cannot be reached; 2 by default. */
  readonly maxRetries?: number | undefined;
  /** Milliseconds until an answer must have begun, and as many until one of JSON has ended; 60,000 by default. */
  readonly timeoutMs?: number | undefined;
  /** In place of the runtime's own. */
  readonly fetch?: typeof fetch | undefined;
}

/** A server of `ditrun serve`, from anywhere that has fetch: Node.js, or a page that the server itself sends. */
export interface Client {
  readonly videos: Videos;
}

/** @throws DitrunError ERR_OPTION_VALUE for a url that is none. */
export function createClient(options: ClientOptions = {}): Client {
  const { url = "http://127.0.0.1:8000", apiKey, maxRetries = 2, timeoutMs = 60_000 } = options;
  const own = options.fetch ?? ((...given: Parameters<typeof fetch>) => fetch(...given));
  return { videos: new Videos(new Http({ url, apiKey, maxRetries, timeoutMs, fetch: own })) };
}
