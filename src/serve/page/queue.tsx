import type { Video } from "./api.js";
import { stateWords } from "./words.js";

interface Props {
  /** Being made or waiting, in the order in which they are made. */
  readonly videos: readonly Video[];
  readonly selected: string | undefined;
  onSelect(id: string): void;
  onCancel(id: string): void;
}

/** Videos that are being made or wait. */
export function Queue({ videos, selected, onSelect, onCancel }: Props) {
  if (videos.length === 0) return null;
  return (
    <section class="queue" aria-label="Queue">
      <h3>Queue</h3>
      <ol>
        {videos.map((video) => (
          <li key={video.id} aria-current={video.id === selected ? "true" : undefined}>
            <button type="button" class="plain" onClick={() => onSelect(video.id)}>
              {video.prompt}
            </button>
            <span class="note">{stateWords(video)}</span>
            <button type="button" aria-label={`Cancel ${video.prompt}`} onClick={() => onCancel(video.id)}>
              Cancel
            </button>
          </li>
        ))}
      </ol>
    </section>
  );
}
