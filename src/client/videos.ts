import { DitrunError, messageOf } from "../failure.js";
import { asProgress, asVideo, strange } from "./answers.js";
import { readEvents, type StreamEvent } from "./event-stream.js";
import { type Http, pause, usualWait } from "./http.js";
import { fieldOf, parsed } from "./server-error.js";
import type {
  CallOptions,
  ContentOptions,
  CreateOptions,
  CreateVideo,
  EventOptions,
  GenerateOptions,
  ListOptions,
  Video,
  VideoEvent,
} from "./types.js";

const PATIENCE_MS = 60_000;

/** The videos of a server. Every call throws DitrunError, or the reason of its signal. */
export class Videos {
  constructor(private readonly http: Http) {}

  /**
   * Asks for a video. @returns it once the server has accepted it; it waits then. The signal does not cut off a request that is on
   * its way, since the server may have accepted it.
   */
  async create(request: CreateVideo, { signal, idempotencyKey = newKey() }: CreateOptions = {}): Promise<Video> {
    const headers = { "idempotency-key": idempotencyKey };
    const call = { method: "POST", path: "/videos", what: "make this video" } as const;
    return asVideo(await this.http.json({ ...call, body: request, headers, signal, whole: true }));
  }

  /** How far a video is. */
  async retrieve(id: string, { signal }: CallOptions = {}): Promise<Video> {
    return asVideo(await this.http.json({ method: "GET", path: pathOf(id), what: `tell of ${id}`, signal }));
  }

  /** All videos, page after page. */
  async *list({ limit = 20, order = "desc", after, signal }: ListOptions = {}): AsyncGenerator<Video, void> {
    let last = after;
    for (;;) {
      const query = new URLSearchParams({ limit: `${limit}`, order, ...(last !== undefined && { after: last }) });
      const page = await this.http.json({ method: "GET", path: `/videos?${query}`, what: "list videos", signal });
      const data = fieldOf(page, "data");
      if (!Array.isArray(data)) throw strange("a list of videos");
      const videos = data.map(asVideo);
      yield* videos;
      const before = last;
      last = videos.at(-1)?.id;
      if (fieldOf(page, "has_more") !== true || last === undefined) return;
      if (last === before) throw strange("the next page of videos");
    }
  }

  /** Ends a video at its next step. @returns it; its error's code is `cancelled`. */
  async cancel(id: string, { signal }: CallOptions = {}): Promise<Video> {
    const call = { method: "POST", path: pathOf(id, "/cancel"), what: `cancel ${id}` } as const;
    return asVideo(await this.http.json({ ...call, signal }));
  }

  /** Removes a video and its file; one that is not done is cancelled. */
  async delete(id: string, { signal }: CallOptions = {}): Promise<void> {
    await this.http.json({ method: "DELETE", path: pathOf(id), what: `delete ${id}`, signal });
  }

  /** The MP4 file of a completed video, as an answer whose body is still to be read. */
  content(id: string, { range, signal }: ContentOptions = {}): Promise<Response> {
    const headers = range === undefined ? undefined : { range };
    return this.http.call({ method: "GET", path: pathOf(id, "/content"), what: `send ${id}`, headers, signal });
  }

  /**
   * Follows a video, from what is to its end or removal. A connection that breaks off is made again; what happened meanwhile is
   * told as it then is.
   */
  async *events(id: string, { signal, patienceMs = PATIENCE_MS }: EventOptions = {}): AsyncGenerator<VideoEvent, void> {
    const call = { method: "GET", path: pathOf(id, "/events"), what: `tell of ${id}` } as const;
    let heard = Date.now();
    for (let attempt = 0; ; attempt++) {
      let lost: unknown;
      try {
        const { body } = await this.http.call({ ...call, signal, maxRetries: 0 });
        if (body === null) throw strange("events");
        for await (const event of readEvents(body)) {
          const known = knownEvent(event);
          [heard, attempt] = [Date.now(), 0];
          if (!known) continue;
          yield known;
          if (known.kind === "deleted" || (known.kind === "status" && isFinal(known.video))) return;
        }
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof DitrunError && !mayPass(error)) throw error;
        lost = error;
      }
      if (Date.now() - heard > patienceMs) {
        if (lost instanceof DitrunError) throw lost;
        const why = lost === undefined ? "the connection ended" : messageOf(lost);
        throw new DitrunError("ERR_SERVER_UNREACHABLE", `The server tells nothing more of ${id}: ${why}.`, {
          cause: lost,
        });
      }
      await pause(usualWait(attempt), signal);
    }
  }

  /** Waits for a video. @returns it completed. @throws DitrunError ERR_VIDEO_FAILED where it has failed. */
  async wait(
    id: string,
    { onEvent, ...options }: EventOptions & Pick<GenerateOptions, "onEvent"> = {},
  ): Promise<Video> {
    for await (const event of this.events(id, options)) {
      onEvent?.(event);
      if (event.kind === "deleted") throw new DitrunError("ERR_VIDEO_FAILED", `${id} was deleted before it was done.`);
      if (event.kind !== "status" || !isFinal(event.video)) continue;
      const { status, error } = event.video;
      if (status === "completed") return event.video;
      throw new DitrunError("ERR_VIDEO_FAILED", `${id} has failed (${error?.code}): ${error?.message}`);
    }
    throw strange("the end of a video");
  }

  /**
   * Makes a video: asks for it, waits, and gets its file. Where the signal ends that, the video is cancelled as well.
   * @returns the video, and the answer with its file, still to be read.
   */
  async generate(
    request: CreateVideo,
    { signal, idempotencyKey, patienceMs, onEvent }: GenerateOptions = {},
  ): Promise<{ video: Video; content: Response }> {
    const { id } = await this.create(request, { signal, idempotencyKey });
    try {
      signal?.throwIfAborted();
      const video = await this.wait(id, { signal, patienceMs, onEvent });
      return { video, content: await this.content(id, { signal }) };
    } catch (error) {
      // The caller hears why it gave up; whether the server heard is of less use to it.
      if (signal?.aborted) await this.cancel(id).catch(() => undefined);
      throw error;
    }
  }
}

const isFinal = ({ status }: Video) => status === "completed" || status === "failed";

/** Whether the same call may work later. */
function mayPass({ code }: DitrunError): boolean {
  return code === "ERR_SERVER_UNREACHABLE" || code === "ERR_SERVER_BUSY";
}

function pathOf(id: string, rest = ""): string {
  return `/videos/${encodeURIComponent(id)}${rest}`;
}

/** Works on pages without TLS too, unlike randomUUID. */
function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function knownEvent({ name, data }: StreamEvent): VideoEvent | undefined {
  if (name === "deleted") return { kind: "deleted" };
  if (name === "status") return { kind: "status", video: asVideo(parsed(data)) };
  return name === "progress" ? { kind: "progress", progress: asProgress(parsed(data)) } : undefined;
}
