import { isFinal, type VideoRecord } from "./records.js";
import type { Exchange } from "./router.js";
import type { ProgressEvent, Video } from "./schemas.js";

/** A comment so often keeps proxies from ending a quiet stream. */
const BEAT_MS = 15_000;
/** Of a client that reads nothing. */
const MOST_WAITING_BYTES = 2 ** 18;

interface Source {
  /** Undefined once it is deleted. */
  record(): VideoRecord | undefined;
  video(record: VideoRecord): Video;
  progress(): ProgressEvent | undefined;
  watch(listener: (what: "status" | "progress") => void): () => void;
}

/**
 * Tells of a video as it changes, as server-sent events: `status` with the video, `progress` with the stage and step, and `deleted`.
 * The stream begins with what is, and ends once nothing changes any more.
 */
export function sendEvents({ request, response }: Exchange, { record, video, progress, watch }: Source): void {
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
  const tell = (what: "status" | "progress") => {
    const now = record();
    if (!now) {
      write(eventOf("deleted", {}));
      return end();
    }
    const made = progress();
    if (what === "status") write(eventOf("status", video(now)));
    else if (made) write(eventOf("progress", made));
    if (isFinal(now)) end();
  };
  response.once("close", end);
  stop = watch(tell);
  tell("status");
}

function eventOf(name: string, data: object): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}
