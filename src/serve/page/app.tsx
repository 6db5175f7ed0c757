import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Api, Refusal, randomKey, type Video } from "./api.js";
import { Composer } from "./composer.js";
import { type Draft, draftOf, emptyDraft, fitted, requestOf } from "./draft.js";
import { Gallery } from "./gallery.js";
import { keptDraft, keptKey } from "./kept.js";
import { KeyForm } from "./key.js";
import { Queue } from "./queue.js";
import { Stage } from "./stage.js";
import { useLive, useVideos } from "./use-videos.js";
import { estimate, isActive, stateWords } from "./words.js";

/** The page. What is shown comes from the server, so a reload loses nothing. */
export function App() {
  const [key, setKey] = useState(keptKey.read);
  const api = useMemo(() => new Api(key), [key]);
  const served = useVideos(api);
  const { model, videos, locked } = served;
  const takeKey = (given: string) => {
    keptKey.write(given);
    setKey(given);
  };
  return (
    <>
      <header class="top">
        <h1>ditrun</h1>
        {model && <span class="note">{model.id}</span>}
        <span class="gap" />
        <State {...served} />
      </header>
      <main>
        {locked && <KeyForm key={key} wrong={key !== undefined} onKey={takeKey} />}
        {!locked && model && videos && <Studio {...{ api, served, model, videos }} />}
        {!locked && (!model || !videos) && <p class="note first">{served.trouble ?? "Asking the server …"}</p>}
      </main>
    </>
  );
}

function State({ ready, trouble, videos }: ReturnType<typeof useVideos>) {
  if (!videos) return null;
  const words = trouble ?? (ready ? "Ready" : "The model is being loaded");
  return (
    <span class="readiness" data-ready={ready && trouble === undefined} role="status">
      {words}
    </span>
  );
}

interface StudioProps {
  readonly api: Api;
  readonly served: ReturnType<typeof useVideos>;
  readonly model: NonNullable<ReturnType<typeof useVideos>["model"]>;
  readonly videos: readonly Video[];
}

function Studio({ api, served, model, videos }: StudioProps) {
  const [draft, setDraft] = useState<Draft>(() => fitted(keptOr(emptyDraft(model)), model));
  const [chosen, setChosen] = useState<string>();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string>();
  const top = useRef<HTMLDivElement>(null);

  const active = videos.filter(isActive).sort(asMade);
  const final = videos.filter((video) => !isActive(video));
  const video = videos.find(({ id }) => id === chosen) ?? active[0] ?? final[0];
  const followed = video && isActive(video) ? video : active[0];
  const live = useLive(api, followed?.id, served.put);
  const news = useNews(videos);

  const [first] = active;
  useEffect(() => {
    document.title = first?.status === "in_progress" ? `${first.progress} % · ditrun` : "ditrun";
  }, [first?.status, first?.progress]);
  useEffect(() => keptDraft.write(JSON.stringify(draft)), [draft]);
  const change = (changed: Partial<Draft>) => setDraft((before) => ({ ...before, ...changed }));
  const show = (id: string) => {
    setChosen(id);
    top.current?.scrollIntoView({ behavior: "smooth", block: "start" });
  };
  /** Tells what a call was refused for. */
  const attempt = async (call: () => Promise<void>) => {
    setProblem(undefined);
    try {
      await call();
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) served.refresh();
      setProblem(error instanceof Error ? error.message : String(error));
    }
  };
  const create = async () => {
    setBusy(true);
    await attempt(async () => {
      const made = await api.create(requestOf(draft), randomKey());
      served.put(made);
      show(made.id);
    });
    setBusy(false);
  };
  const cancel = (id: string) => attempt(async () => served.put(await api.cancel(id)));
  const remove = (id: string) =>
    attempt(async () => {
      await api.remove(id);
      served.drop(id);
    });
  const reuse = (from: Video) => {
    setDraft(fitted(draftOf(from), model));
    document.querySelector<HTMLTextAreaElement>(".composer textarea")?.focus();
  };

  const steps = draft.steps === "" ? model.num_inference_steps : Number(draft.steps);
  return (
    <div class={video ? "studio" : "studio empty"} ref={top}>
      {video ? (
        <Stage
          {...{ api, video, live: followed?.id === video.id ? live : { progress: undefined, preview: undefined } }}
          onCancel={(id) => void cancel(id)}
          onDelete={(id) => void remove(id)}
          onReuse={reuse}
        />
      ) : (
        <p class="welcome">What should it show?</p>
      )}
      <Composer
        {...{ model, draft, busy, problem, estimate: estimate(final, draft.size, draft.frames, steps) }}
        onChange={change}
        onSubmit={() => void create()}
      />
      <Queue
        videos={active.length > 1 || active[0]?.id !== video?.id ? active : []}
        selected={video?.id}
        onSelect={show}
        onCancel={(id) => void cancel(id)}
      />
      <Gallery
        {...{ api, videos: final, selected: video?.id, more: served.more, onSelect: show, onMore: served.showMore }}
      />
      <p class="unseen" role="status">
        {news}
      </p>
    </div>
  );
}

/** The one that is being made first, then by their places. */
function asMade(a: Video, b: Video): number {
  return (a.queue_position ?? 0) - (b.queue_position ?? 0) || a.created_at - b.created_at;
}

function keptOr(empty: Draft): Draft {
  const kept = keptDraft.read();
  return kept === undefined ? empty : { ...empty, ...JSON.parse(kept) };
}

/** What has become of videos, for who does not see the page; not each step of them. */
function useNews(videos: readonly Video[]): string {
  const before = useRef(new Map<string, Video["status"]>());
  const [news, setNews] = useState("");
  useEffect(() => {
    for (const video of videos) {
      const known = before.current.get(video.id);
      if (known !== undefined && known !== video.status) {
        setNews(`${video.status === "in_progress" ? "Begun" : stateWords(video)}: ${video.prompt}`);
      }
      before.current.set(video.id, video.status);
    }
  }, [videos]);
  return news;
}
