import { useState } from "preact/hooks";
import { Actions } from "./actions.js";
import type { Api, Video } from "./api.js";
import { Preview } from "./preview.js";
import { useContent } from "./use-content.js";
import type { Live } from "./use-videos.js";
import { duration, isActive, leftWords, lengthWords, shapeOf, sizeWords, stageWords, stateWords } from "./words.js";

interface Props {
  readonly api: Api;
  readonly video: Video;
  readonly live: Live;
  onCancel(id: string): void;
  onDelete(id: string): void;
  onReuse(video: Video): void;
}

/** The video that is looked at: playing, being made, waiting, or what went wrong with it. */
export function Stage({ api, video, live, onCancel, onDelete, onReuse }: Props) {
  const { width, height } = shapeOf(video.size);
  const active = isActive(video);
  return (
    <section class="stage" aria-label="The video" style={{ "--shape": `${width / height}` }}>
      <div class="screen">
        {video.status === "completed" && <Player key={video.id} api={api} video={video} />}
        {active && (live.preview ? <Preview preview={live.preview} /> : <div class="waiting" />)}
        {video.status === "failed" && <Failure video={video} />}
        {video.status === "in_progress" && <Bar video={video} />}
      </div>
      {active && <Progress video={video} live={live} onCancel={onCancel} />}
      <div class="caption">
        <h2>{video.prompt}</h2>
        <Facts video={video} />
        {!active && <Actions key={video.id} {...{ api, video, onDelete, onReuse }} />}
      </div>
    </section>
  );
}

function Player({ api, video }: Pick<Props, "api" | "video">) {
  const url = useContent(api, video.id, "video");
  const poster = useContent(api, video.id, "thumbnail");
  const [broken, setBroken] = useState(false);
  if (broken) return <p class="failure">The video cannot be fetched. Load the page again.</p>;
  if (url === undefined) return <div class="waiting" />;
  return (
    <video
      {...{ src: url, poster, controls: true, autoplay: true, loop: true, muted: true, playsInline: true }}
      aria-label={video.prompt}
      onError={() => setBroken(true)}
    />
  );
}

function Failure({ video: { error } }: Pick<Props, "video">) {
  if (error?.code === "cancelled") return <p class="failure">Cancelled.</p>;
  return (
    <div class="failure">
      <p>This video could not be made.</p>
      <p class="why">{error?.message}</p>
    </div>
  );
}

function Bar({ video: { progress, prompt } }: Pick<Props, "video">) {
  return (
    <div
      class="bar"
      role="progressbar"
      aria-label={`Progress of ${prompt}`}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={progress}
    >
      <span class="fill" style={{ width: `${progress}%` }} />
    </div>
  );
}

function Progress({ video, live: { progress }, onCancel }: Pick<Props, "video" | "live" | "onCancel">) {
  const [stopping, setStopping] = useState(false);
  const begun = video.status === "in_progress";
  return (
    <div class="progress">
      <span>{begun && progress ? stageWords(progress) : stateWords(video)}</span>
      <span class="gap">{begun && progress && leftWords(progress)}</span>
      <button
        type="button"
        disabled={stopping}
        onClick={() => {
          setStopping(true);
          onCancel(video.id);
        }}
      >
        {stopping ? "Cancelling …" : "Cancel"}
      </button>
    </div>
  );
}

/** How it was made. */
function Facts({ video }: Pick<Props, "video">) {
  const facts = [
    sizeWords(video.size),
    lengthWords(video.num_frames, video.fps),
    video.num_inference_steps !== null && `${video.num_inference_steps} steps`,
    video.guidance_scale !== null && `guidance ${video.guidance_scale}`,
    ...(video.lora ?? []).map(({ name, scale }) => (scale === 1 ? name : `${name} × ${scale}`)),
    video.inference_time_s !== null && `made in ${duration(video.inference_time_s)}`,
  ].filter((fact) => fact !== false);
  return (
    <p class="facts">
      {facts.map((fact) => (
        <span key={fact}>{fact}</span>
      ))}
      <span>
        seed <span class="seed">{video.seed}</span>
      </span>
    </p>
  );
}
