import { DitrunError, messageOf } from "../failure.js";
import { readText } from "./read-text.js";
import { parsed, refusalOf } from "./server-error.js";

/** As OpenAI's clients wait: half a second, then twice as long each time. */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;
/** A server that asks for more is asked at the usual times. */
const LONGEST_ASKED_MS = 60_000;
/** Of an answer in JSON: a hundred videos with the longest prompts have some 40 MB. */
const MOST_JSON_BYTES = 2 ** 26;

export interface HttpOptions {
  /** Of the server, as `http://127.0.0.1:8000`; with or without `/v1`. */
  readonly url: string;
  readonly apiKey?: string | undefined;
  /** How often a call is tried again: where the server is busy, or the connection breaks. */
  readonly maxRetries: number;
  /** Milliseconds until an answer must have begun; one of JSON ends within as many more. */
  readonly timeoutMs: number;
  readonly fetch: typeof fetch;
}

export interface Call {
  readonly method: "GET" | "POST" | "DELETE";
  /** Below `/v1`. */
  readonly path: string;
  /** For people, as `create a video`. */
  readonly what: string;
  readonly body?: object | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly signal?: AbortSignal | undefined;
  /** The signal only ends the waits between attempts. */
  readonly whole?: true;
  /** Instead of the client's. */
  readonly maxRetries?: number | undefined;
}

/** Calls of a server, tried again as OpenAI's clients do. */
export class Http {
  readonly #base: string;

  /** @throws DitrunError ERR_OPTION_VALUE for a url that is none. */
  constructor(private readonly options: HttpOptions) {
    const { url } = options;
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
      throw new DitrunError("ERR_OPTION_VALUE", `The url is "${url}"; it must be one of http or https.`);
    }
    const { username, password, search, hash } = new URL(url);
    // Not shown: there may be a password in it.
    if (username || password || search || hash) {
      throw new DitrunError(
        "ERR_OPTION_VALUE",
        "The url has more than a host, a port and a path: leave the rest out, and give a key as DITRUN_API_KEY.",
      );
    }
    this.#base = url.replace(/\/+$/, "").replace(/\/v1$/, "");
  }

  /** @returns an answer of success, whose body is not read yet. @throws DitrunError, or the signal's reason. */
  async call(call: Call): Promise<Response> {
    const most = call.maxRetries ?? this.options.maxRetries;
    for (let attempt = 0; ; attempt++) {
      call.signal?.throwIfAborted();
      const answer = await this.#once(call).catch((error: unknown) => {
        if (call.whole !== true) call.signal?.throwIfAborted();
        return new DitrunError("ERR_SERVER_UNREACHABLE", `${this.#base} cannot be reached: ${reasonOf(error)}.`, {
          cause: error,
        });
      });
      if (!(answer instanceof DitrunError) && answer.ok) return answer;
      if (!(answer instanceof DitrunError)) await this.#refuseRedirect(answer);
      const again = attempt < most && (answer instanceof DitrunError || mayRetry(answer));
      if (!again) throw answer instanceof DitrunError ? answer : await refusalOf(answer, call.what);
      const asked = answer instanceof DitrunError ? undefined : askedWait(answer);
      if (!(answer instanceof DitrunError)) await answer.body?.cancel();
      await pause(asked ?? usualWait(attempt), call.signal);
    }
  }

  /** A prompt is for the server that was named. @throws DitrunError where it sends elsewhere; browsers do not tell where. */
  async #refuseRedirect({ status, type, headers, body }: Response): Promise<void> {
    if (type !== "opaqueredirect" && (status < 300 || status > 399)) return;
    await body?.cancel();
    const place = headers.get("location") ?? "another address";
    throw new DitrunError(
      "ERR_SERVER_ANSWER",
      `${this.#base} sends to ${place.slice(0, 200)}, which is not followed: if you trust that server, give its address.`,
    );
  }

  /** @returns the answer's JSON. @throws DitrunError, or the signal's reason. */
  async json(call: Call): Promise<unknown> {
    const response = await this.call(call);
    const limits = { mostBytes: MOST_JSON_BYTES, mostMs: this.options.timeoutMs };
    const text = await readText(response, limits).catch((error: unknown) => {
      call.signal?.throwIfAborted();
      throw new DitrunError("ERR_SERVER_ANSWER", `${this.#base} gave no whole answer: ${reasonOf(error)}.`, {
        cause: error,
      });
    });
    const answer = parsed(text);
    if (answer !== undefined) return answer;
    throw new DitrunError("ERR_SERVER_ANSWER", `${this.#base} gave an answer that is no JSON: is it ditrun's server?`);
  }

  async #once({ method, path, body, headers, signal, whole }: Call): Promise<Response> {
    const { apiKey, timeoutMs } = this.options;
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs);
    try {
      return await this.options.fetch(`${this.#base}/v1${path}`, {
        method,
        redirect: "manual",
        headers: {
          ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
          ...(body && { "content-type": "application/json" }),
          ...headers,
        },
        ...(body && { body: JSON.stringify(body) }),
        signal: signal && whole !== true ? AbortSignal.any([signal, late.signal]) : late.signal,
      });
    } finally {
      // The body may take longer.
      clearTimeout(timer);
    }
  }
}

function mayRetry({ status, headers }: Response): boolean {
  const said = headers.get("x-should-retry");
  if (said !== null) return said === "true";
  return status === 408 || status === 409 || status === 429 || status >= 500;
}

/** Milliseconds that the server asks for. */
function askedWait({ headers }: Response): number | undefined {
  const milliseconds = Number.parseFloat(headers.get("retry-after-ms") ?? "");
  const text = headers.get("retry-after") ?? "";
  const seconds = Number.parseFloat(text);
  const wait = [milliseconds, 1000 * seconds, Date.parse(text) - Date.now()].find(Number.isFinite);
  return wait !== undefined && wait >= 0 && wait <= LONGEST_ASKED_MS ? wait : undefined;
}

/** A quarter of it is left to chance, so that clients do not come back together. */
export function usualWait(attempt: number): number {
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** attempt) * (1 - 0.25 * Math.random());
}

/** @throws the signal's reason once it is aborted. */
export function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** What fetch hides in the cause of its errors, without the end of a sentence. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return (messageOf(inner) || messageOf(error)).replace(/\.$/, "");
}
