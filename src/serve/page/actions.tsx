import { useEffect, useState } from "preact/hooks";
import type { Api, Video } from "./api.js";
import { copyText } from "./clipboard.js";
import { commandOf, curlOf } from "./command.js";
import { useContent } from "./use-content.js";

interface Props {
  readonly api: Api;
  readonly video: Video;
  onDelete(id: string): void;
  onReuse(video: Video): void;
}

/** What can be done with a video that is final. */
export function Actions({ api, video, onDelete, onReuse }: Props) {
  const url = useContent(api, video.status === "completed" ? video.id : undefined, "video");
  return (
    <div class="actions">
      {url !== undefined && (
        <a class="button" href={url} download={`${video.id}.mp4`}>
          Download
        </a>
      )}
      <button type="button" onClick={() => onReuse(video)}>
        Use these settings
      </button>
      <CopyButton words="Copy seed" text={() => `${video.seed}`} />
      <CopyButton words="Copy as command" text={() => commandOf(video)} />
      <CopyButton words="Copy as curl" text={() => curlOf(video, location.origin, api.key !== undefined)} />
      <DeleteButton onDelete={() => onDelete(video.id)} />
    </div>
  );
}

/** How long a button tells what it has done, or asks once more. */
const TELL_MS = 2000;
const ASK_MS = 4000;

/** True for so long after it was set. */
function useMoment(milliseconds: number): [on: boolean, set: () => void] {
  const [on, setOn] = useState(0);
  useEffect(() => {
    if (on === 0) return undefined;
    const timer = setTimeout(() => setOn(0), milliseconds);
    return () => clearTimeout(timer);
  }, [on, milliseconds]);
  return [on > 0, () => setOn((before) => before + 1)];
}

function CopyButton({ words, text }: { readonly words: string; readonly text: () => string }) {
  const [copied, setCopied] = useMoment(TELL_MS);
  const copy = async () => {
    if (await copyText(text())) setCopied();
  };
  return (
    <button type="button" aria-live="polite" onClick={() => void copy()}>
      {copied ? "Copied" : words}
    </button>
  );
}

/** It asks once more, since nothing brings a video back. */
function DeleteButton({ onDelete }: { readonly onDelete: () => void }) {
  const [asked, setAsked] = useMoment(ASK_MS);
  return (
    <button type="button" class={asked ? "danger" : ""} onClick={asked ? onDelete : setAsked}>
      {asked ? "Delete for good?" : "Delete"}
    </button>
  );
}
