import type { CreateRequest, ServedModel, Video } from "../schemas.js";

export type { CreateRequest, ServedModel, Video } from "../schemas.js";
export type Variant = "video" | "thumbnail" | "spritesheet";

/** A page of the list, as the server gives it at most. */
const PAGE = 100;

/** What the server refuses, in its own words. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string | null,
    message: string,
  ) {
    super(message);
  }
}

/** The server did not answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer. This page tries again by itself.");
  }
}

/** Calls of the server that sent this page. The key goes into a header, and nowhere else. */
export class Api {
  constructor(readonly key: string | undefined) {}

  /** @throws Refusal or Unreachable. */
  async call(method: string, path: string, body?: object, headers: Record<string, string> = {}): Promise<Response> {
    const given = body && { body: JSON.stringify(body) };
    const all = { ...headers, ...this.headers, ...(body && { "content-type": "application/json" }) };
    const response = await fetch(path, { method, headers: all, ...given }).catch((error: unknown) => {
      throw error instanceof DOMException ? error : new Unreachable();
    });
    if (response.ok) return response;
    throw await refusalOf(response);
  }

  get headers(): Record<string, string> {
    return this.key === undefined ? {} : { authorization: `Bearer ${this.key}` };
  }

  async model(): Promise<ServedModel> {
    const response = await this.call("GET", "/v1/models");
    const { data }: { data: ServedModel[] } = await response.json();
    const [model] = data;
    if (!model) throw new Unreachable();
    return model;
  }

  /** Whether a video can be made at once. */
  async isReady(): Promise<boolean> {
    const response = await fetch("/readyz").catch(() => undefined);
    return response?.ok ?? false;
  }

  /** The newest videos, so many of them. */
  async list(count: number): Promise<{ videos: Video[]; more: boolean }> {
    const videos: Video[] = [];
    for (;;) {
      const after = videos.length === 0 ? "" : `&after=${videos.at(-1)?.id}`;
      const limit = Math.min(PAGE, count - videos.length);
      const response = await this.call("GET", `/v1/videos?limit=${limit}${after}`);
      const { data, has_more: more }: { data: Video[]; has_more: boolean } = await response.json();
      videos.push(...data);
      if (!more || videos.length >= count) return { videos, more };
    }
  }

  /** @param key makes a request that is sent twice one video. */
  async create(request: CreateRequest, key: string): Promise<Video> {
    const response = await this.call("POST", "/v1/videos", request, { "idempotency-key": key });
    return response.json();
  }

  async cancel(id: string): Promise<Video> {
    const response = await this.call("POST", `/v1/videos/${id}/cancel`);
    return response.json();
  }

  async remove(id: string): Promise<void> {
    await this.call("DELETE", `/v1/videos/${id}`);
  }
}

async function refusalOf(response: Response): Promise<Refusal> {
  const body: unknown = await response.json().catch(() => undefined);
  const error = typeof body === "object" && body !== null && "error" in body ? body.error : undefined;
  const known = typeof error === "object" && error !== null ? error : {};
  const message = "message" in known && typeof known.message === "string" ? known.message : "";
  const code = "code" in known && typeof known.code === "string" ? known.code : null;
  return new Refusal(response.status, code, message || `The server answered ${response.status}.`);
}

/** 128 random bits. `crypto.randomUUID` is only there where the page came by TLS or from this machine. */
export function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
