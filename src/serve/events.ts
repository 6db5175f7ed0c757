import type { News } from "./listeners.js";
import { isFinal, type VideoRecord } from "./records.js";
import type { Exchange } from "./router.js";
import type { PreviewEvent, ProgressEvent, Video } from "./schemas.js";

/** A comment so often keeps proxies from ending a quiet stream. */
const BEAT_MS = 15_000;
/** Of a client that reads nothing. */
const MOST_WAITING_BYTES = 2 ** 18;
/** Of one that reads slowly: previews are left out until it has read them. */
const FEW_WAITING_BYTES = 2 ** 15;

interface Source {
  /** Undefined once it is deleted. */
  record(): VideoRecord | undefined;
  video(record: VideoRecord): Video;
  progress(): ProgressEvent | undefined;
  /** The latest one. */
  preview(): PreviewEvent | undefined;
  watch(listener: (what: News) => void): () => void;
}

/**
 * Tells of a video as it changes, as server-sent events: `status` with the video, `progress` with the stage and step, `preview` with a
 * picture, and `deleted`. The stream begins with what is, and ends once nothing changes any more.
 */
export function sendEvents(
  { request, response, query }: Exchange,
  { record, video, progress, preview, watch }: Source,
): void {
  response.writeHead(200, { "content-type": "text/event-stream", "x-accel-buffering": "no" });
  if (request.method === "HEAD") {
    response.end();
    return;
  }
  let stop = () => {};
  const beat = setInterval(() => write(": still here\n\n"), BEAT_MS);
  const end = () => {
    clearInterval(beat);
    stop();
    response.end();
  };
  function write(text: string): void {
    if (response.writableLength > MOST_WAITING_BYTES) response.destroy();
    else response.write(text);
  }
  const tell = (what: News) => {
    const now = record();
    if (!now) {
      write(eventOf("deleted", {}));
      return end();
    }
    const made = progress();
    const seen = preview();
    if (what === "status") write(eventOf("status", video(now)));
    else if (what === "preview") {
      if (seen && response.writableLength < FEW_WAITING_BYTES) write(eventOf("preview", seen));
    } else if (made) write(eventOf("progress", made));
    if (isFinal(now)) end();
  };
  response.once("close", end);
  stop = watch(tell);
  tell("status");
  if (response.writableEnded) return;
  tell("progress");
  if (preview() && query.preview !== "false") tell("preview");
}

function eventOf(name: string, data: object): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}
