import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { PreviewEvent, ProgressEvent } from "../schemas.js";
import { type Api, Refusal, type ServedModel, Unreachable, type Video } from "./api.js";
import { follow } from "./events.js";
import { isActive } from "./words.js";

/** Between two looks at the list: while something is being made, and else. */
const SOON_MS = 1500;
const LATER_MS = 5000;
const PAGE = 24;

/** What the server says; the page has no other truth. */
export interface Served {
  /** Undefined until the server has answered. */
  readonly model: ServedModel | undefined;
  readonly ready: boolean;
  /** The newest first; undefined until the server has answered. */
  readonly videos: readonly Video[] | undefined;
  readonly more: boolean;
  /** Why the last call failed, where it did. */
  readonly trouble: string | undefined;
  /** The server wants another key than it was given. */
  readonly locked: boolean;
  showMore(): void;
  /** Looks at once. */
  refresh(): void;
  /** What a call has answered about a video. */
  put(video: Video): void;
  drop(id: string): void;
}

export function useVideos(api: Api): Served {
  const [model, setModel] = useState<ServedModel>();
  const [ready, setReady] = useState(false);
  const [videos, setVideos] = useState<readonly Video[]>();
  const [more, setMore] = useState(false);
  const [trouble, setTrouble] = useState<string>();
  const [locked, setLocked] = useState(false);
  const [count, setCount] = useState(PAGE);
  const [look, setLook] = useState(0);
  const active = videos?.some(isActive) ?? false;
  const unknown = model?.num_inference_steps === undefined || model.num_inference_steps === null;

  useEffect(() => {
    let over = false;
    const run = async () => {
      try {
        const isReady = await api.isReady();
        const listed = await api.list(count);
        const served = unknown || !isReady ? await api.model() : undefined;
        if (over) return;
        setReady(isReady);
        if (served) setModel(served);
        setVideos(listed.videos);
        setMore(listed.more);
        setTrouble(undefined);
        setLocked(false);
      } catch (error) {
        if (over) return;
        if (error instanceof Refusal && error.status === 401) setLocked(true);
        else if (error instanceof Refusal || error instanceof Unreachable) setTrouble(error.message);
        setReady(false);
      }
    };
    void run();
    const timer = setInterval(
      () => {
        if (!document.hidden) void run();
      },
      active || !ready ? SOON_MS : LATER_MS,
    );
    const onShow = () => {
      if (!document.hidden) void run();
    };
    document.addEventListener("visibilitychange", onShow);
    return () => {
      over = true;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", onShow);
    };
  }, [api, count, look, active, ready, unknown]);

  const put = useCallback((video: Video) => {
    setVideos((before = []) => {
      const known = before.some(({ id }) => id === video.id);
      return known ? before.map((each) => (each.id === video.id ? video : each)) : [video, ...before];
    });
  }, []);
  const drop = useCallback((id: string) => setVideos((before = []) => before.filter((each) => each.id !== id)), []);
  const showMore = useCallback(() => setCount((before) => before + PAGE), []);
  const refresh = useCallback(() => setLook((before) => before + 1), []);
  return { model, ready, videos, more, trouble, locked, showMore, refresh, put, drop };
}

/** How far a video is, and what it looks like. */
export interface Live {
  readonly progress: ProgressEvent | undefined;
  readonly preview: PreviewEvent | undefined;
}

const nothing: Live = { progress: undefined, preview: undefined };

/** Follows one video as it is made: each open stream takes one of the few connections that a browser has. */
export function useLive(api: Api, id: string | undefined, put: (video: Video) => void): Live {
  const [live, setLive] = useState<Live & { readonly id: string | undefined }>({ ...nothing, id });
  const putRef = useRef(put);
  putRef.current = put;
  useEffect(() => {
    if (id === undefined) return undefined;
    return follow(api, id, {
      status: (video) => putRef.current(video),
      progress: (progress) => setLive((before) => ({ ...(before.id === id ? before : nothing), id, progress })),
      preview: (preview) => setLive((before) => ({ ...(before.id === id ? before : nothing), id, preview })),
    });
  }, [api, id]);
  return live.id === id ? live : nothing;
}
