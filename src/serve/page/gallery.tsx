import { useState } from "preact/hooks";
import type { Api, Video } from "./api.js";
import { movesLittle } from "./preview.js";
import { Sheet } from "./sheet.js";
import { useContent } from "./use-content.js";
import { lengthWords, shapeOf, stateWords } from "./words.js";

interface Props {
  readonly api: Api;
  readonly videos: readonly Video[];
  readonly selected: string | undefined;
  readonly more: boolean;
  onSelect(id: string): void;
  onMore(): void;
}

/** Videos that are final, the newest first. */
export function Gallery({ api, videos, selected, more, onSelect, onMore }: Props) {
  if (videos.length === 0) return null;
  return (
    <section class="gallery" aria-label="Videos">
      <ul>
        {videos.map((video) => (
          <li key={video.id}>
            <Card {...{ api, video, onSelect }} current={video.id === selected} />
          </li>
        ))}
      </ul>
      {more && (
        <button class="more" type="button" onClick={onMore}>
          Show more
        </button>
      )}
    </section>
  );
}

interface CardProps extends Pick<Props, "api" | "onSelect"> {
  readonly video: Video;
  readonly current: boolean;
}

function Card({ api, video, current, onSelect }: CardProps) {
  const [near, setNear] = useState(false);
  const made = video.status === "completed";
  const thumbnail = useContent(api, made ? video.id : undefined, "thumbnail");
  const come = () => setNear(true);
  const go = () => setNear(false);
  return (
    <button
      type="button"
      class="card"
      aria-current={current ? "true" : undefined}
      onClick={() => onSelect(video.id)}
      {...{ onPointerEnter: come, onPointerLeave: go, onFocus: come, onBlur: go }}
    >
      <span class="thumb">
        {made && thumbnail !== undefined && <img src={thumbnail} alt="" loading="lazy" />}
        {made && near && !movesLittle() && <Moving api={api} video={video} />}
        {!made && <span class="state">{stateWords(video)}</span>}
        {made && <span class="length">{lengthWords(video.num_frames, video.fps)}</span>}
      </span>
      <span class="prompt">{video.prompt}</span>
    </button>
  );
}

/** As the server makes sheets: five pictures a row, twenty-five at most. */
const COLUMNS = 5;
const MOST_PICTURES = 25;

/** The video in small, from its sheet of pictures. */
function Moving({ api, video }: Pick<CardProps, "api" | "video">) {
  const sheet = useContent(api, video.id, "spritesheet");
  if (sheet === undefined) return null;
  const count = Math.min(MOST_PICTURES, video.num_frames);
  const columns = Math.min(COLUMNS, count);
  const { width, height } = shapeOf(video.size);
  const seconds = video.num_frames / video.fps;
  return (
    <Sheet
      key={sheet}
      {...{ sheet, count, columns, rows: Math.ceil(count / columns), shape: width / height, seconds }}
    />
  );
}
