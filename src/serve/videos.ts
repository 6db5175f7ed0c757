import type { IncomingMessage } from "node:http";
import { ApiError, badField, conflict, schemaError, storageError } from "./api-error.js";
import { readCreate } from "./body.js";
import { sendFile } from "./content.js";
import { sendEvents } from "./events.js";
import type { Jobs } from "./jobs.js";
import type { Metrics } from "./metrics.js";
import type { Queue, Reservation } from "./queue.js";
import { isFinal, type VideoRecord } from "./records.js";
import { type Exchange, type Route, sendJson } from "./router.js";
import { limits, listSchema, type Video } from "./schemas.js";
import { digestOf, type Offer, settingsOf } from "./settings.js";
import type { Store } from "./store.js";
import { variantNames, variantOf, variants } from "./variants.js";
import { VideoViews } from "./video-object.js";

/** What a client that polls should wait. */
const pollLater = { "openai-poll-after-ms": "1000" };
/** What one that finds the queue full should wait, where no video tells how long they take. */
const RETRY_SECONDS = 10;
/** OpenAI's clients do not wait longer. */
const LONGEST_RETRY_SECONDS = 60;

export interface VideosParts {
  readonly store: Store;
  readonly jobs: Jobs;
  readonly queue: Queue;
  readonly metrics: Metrics;
  readonly offer: Offer;
  readonly keepMs: number;
  /** Whether the server is ending, and takes no more. */
  draining(): boolean;
}

/** `/v1/videos` and what is below it. */
export function videoRoutes(parts: VideosParts): Route[] {
  const { store, jobs, queue, offer, keepMs } = parts;
  const views = new VideoViews({ jobs, queue, model: offer.model, keepMs });
  const objectOf = (record: VideoRecord): Video => views.object(record);
  const recordOf = (id: string): VideoRecord => found(store, id);
  return [
    { method: "POST", path: "/v1/videos", handle: (exchange) => create(exchange, parts, objectOf) },
    {
      method: "GET",
      path: "/v1/videos",
      handle: ({ response, query }) => {
        const parsed = listSchema.safeParse(query);
        if (!parsed.success) throw schemaError(parsed.error);
        const { page, more } = store.list(parsed.data);
        const data = page.map(objectOf);
        const ends = { first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null };
        sendJson(response, { object: "list", data, ...ends, has_more: more });
      },
    },
    {
      method: "GET",
      path: "/v1/videos/{id}",
      handle: ({ response, id }) => {
        const record = recordOf(id);
        sendJson(response, views.json(record), isFinal(record) ? undefined : pollLater);
      },
    },
    {
      method: "DELETE",
      path: "/v1/videos/{id}",
      handle: async ({ response, id }) => {
        await jobs.remove(recordOf(id).id);
        sendJson(response, { id, object: "video.deleted", deleted: true });
      },
    },
    {
      method: "POST",
      path: "/v1/videos/{id}/cancel",
      handle: async ({ response, id }) => {
        const record = await jobs.cancel(recordOf(id).id);
        sendJson(response, objectOf(record ?? recordOf(id)));
      },
    },
    {
      method: "GET",
      path: "/v1/videos/{id}/content",
      handle: (exchange) => {
        const { variant: asked = "video" } = exchange.query;
        const variant = variantOf(asked);
        if (!variant) {
          const message = `There is no variant "${asked.slice(0, 50)}", only ${variantNames.join(", ")}.`;
          throw badField("variant", message, "unsupported_variant");
        }
        const { id, status } = recordOf(exchange.id);
        if (status === "failed") throw conflict("video_failed", "The video has failed, so there is none.");
        if (status !== "completed") throw conflict("video_not_ready", `The video is ${status}. Ask again later.`);
        const { ending, type } = variants[variant];
        return sendFile(exchange, { path: store.fileOf(id, variant), name: `${id}${ending}`, type });
      },
    },
    {
      method: "GET",
      path: "/v1/videos/{id}/events",
      handle: (exchange) => {
        const { id } = recordOf(exchange.id);
        sendEvents(exchange, {
          record: () => store.get(id),
          video: objectOf,
          progress: () => jobs.progressOf(id)?.event,
          preview: () => jobs.previewOf(id),
          watch: (listener) => jobs.watch(id, listener, exchange.query.preview !== "false"),
        });
      },
    },
  ];
}

function found(store: Store, id: string): VideoRecord {
  const record = store.get(id);
  if (record) return record;
  if (store.isExpired(id)) throw new ApiError(410, "video_expired", `The time of ${id} is over.`);
  throw new ApiError(404, "video_not_found", `There is no video ${id}.`, { param: "id" });
}

/** A place in the queue is taken before a byte of the body is read. */
async function create(
  { request, response }: Exchange,
  parts: VideosParts,
  objectOf: (record: VideoRecord) => Video,
): Promise<void> {
  const { jobs, offer, metrics } = parts;
  const key = keyOf(request);
  let place = key !== undefined && jobs.knowsKey(key) ? undefined : placeIn(parts);
  try {
    const body = await readCreate(request);
    const idempotency = key === undefined ? undefined : { key, digest: digestOf(body) };
    const settings = settingsOf(body, offer);
    const same = idempotency && jobs.sameAs(idempotency);
    // Without a place it comes here only where the video of its key was deleted meanwhile.
    place ??= same ? undefined : placeIn(parts);
    const record = await (same ?? (place && jobs.create(settings, place, idempotency)));
    if (!record) throw new TypeError("A new video needs a place.");
    place?.release();
    sendJson(response, objectOf(record), pollLater);
  } catch (error) {
    place?.release();
    const refused = error instanceof ApiError ? error : storageError(error);
    if (refused) metrics.rejected(refused.code);
    throw error;
  }
}

function keyOf({ headers }: IncomingMessage): string | undefined {
  const { "idempotency-key": key } = headers;
  if (key === undefined) return undefined;
  if (typeof key === "string" && key !== "" && key.length <= limits.keyCharacters) return key;
  throw badField("Idempotency-Key", `The key must have 1 to ${limits.keyCharacters} characters.`);
}

/** @throws ApiError where there is none. */
function placeIn({ queue, metrics, draining, store }: VideosParts): Reservation {
  if (draining()) {
    metrics.rejected("ending");
    throw new ApiError(503, "server_ending", "The server is ending. Ask again soon.", {
      headers: { "retry-after": `${RETRY_SECONDS}` },
    });
  }
  const place = queue.reserve();
  if (place) return place;
  metrics.rejected("queue_full");
  throw new ApiError(429, "queue_full", `The queue is full: ${queue.capacity} videos wait.`, {
    headers: { "retry-after": `${secondsToRetry(store)}` },
  });
}

/** As long as the latest video took. */
function secondsToRetry(store: Store): number {
  const latest = store.all().findLast(({ measured }) => measured !== undefined)?.measured?.inferenceSeconds;
  return Math.min(LONGEST_RETRY_SECONDS, Math.max(1, Math.ceil(latest ?? RETRY_SECONDS)));
}
