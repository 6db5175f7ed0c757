import type { PreviewEvent, ProgressEvent, Video } from "../schemas.js";
import type { Api } from "./api.js";
import { eventsOf } from "./event-stream.js";

/** What the server tells of one video as it is made. */
export interface Follower {
  status(video: Video): void;
  progress(progress: ProgressEvent): void;
  preview(preview: PreviewEvent): void;
}

/** Before a stream that has broken is asked for again. */
const AGAIN_MS = 2000;

/**
 * Follows a video until nothing changes any more. An EventSource could not send the key, so the stream is read by hand.
 * @returns how to stop.
 */
export function follow(api: Api, id: string, follower: Follower): () => void {
  const stop = new AbortController();
  const run = async () => {
    while (!stop.signal.aborted) {
      try {
        const { signal } = stop;
        const response = await fetch(`/v1/videos/${id}/events`, { headers: api.headers, signal });
        if (!response.ok || !response.body) return;
        for await (const { name, data } of eventsOf(response.body)) tell(follower, name, data);
        return;
      } catch {
        if (!stop.signal.aborted) await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  };
  void run();
  return () => stop.abort();
}

function tell(follower: Follower, name: string, data: string): void {
  if (name === "status") follower.status(JSON.parse(data));
  else if (name === "progress") follower.progress(JSON.parse(data));
  else if (name === "preview") follower.preview(JSON.parse(data));
}
