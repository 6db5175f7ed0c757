import type { Video, VideoEvent } from "../client/types.js";
import { escapeControls } from "../failure.js";
import { cut, type Page } from "./page.js";
import { formatTable } from "./table.js";
import { duration } from "./wait-line.js";

/** Videos of a server, a row each. @param now milliseconds since 1970. */
export function videosTable(page: Page, videos: readonly Video[], now: number): string {
  if (videos.length === 0) return "There are no videos.";
  return formatTable(
    page,
    [
      { head: "id", align: "left", cell: ({ id }) => id },
      { head: "status", align: "left", cell: statusOf },
      { head: "age", cell: ({ created_at }) => duration(Math.max(0, Math.round(now / 1000 - created_at))), drop: 2 },
      { head: "size", cell: ({ size }) => size, drop: 3 },
      { head: "frames", cell: ({ num_frames }) => `${num_frames}`, drop: 5 },
      { head: "seed", cell: ({ seed }) => `${seed}`, drop: 4 },
      {
        head: "prompt",
        align: "left",
        cell: ({ prompt }) => shown(prompt),
        drop: 1,
      },
    ],
    videos,
  );
}

function statusOf({ status, progress, queue_position: place, error }: Video): string {
  if (status === "queued") return place === null ? status : `queued, place ${place}`;
  if (status === "in_progress") return `${progress} %`;
  return error ? shown(error.code) : status;
}

/** What a client waits for, after an event. @returns undefined where there is nothing new to say. */
export function waitText(
  event: VideoEvent,
): { readonly text: string; readonly done: number; leftMs?: number } | undefined {
  if (event.kind === "deleted") return undefined;
  if (event.kind === "status") {
    const { status, queue_position: place, progress } = event.video;
    if (status === "queued") return { text: place === null ? "queued" : `queued, place ${place}`, done: 0 };
    return status === "in_progress" ? { text: "the server begins", done: progress } : undefined;
  }
  const { stage, step, steps, progress, eta_s: left } = event.progress;
  const doing = { prepare: "preparing", encode: "encoding the prompt", sample: "sampling", decode: "decoding" }[stage];
  const text = stage === "sample" ? `step ${step}/${steps}` : doing;
  return { text, done: progress, ...(left !== null && { leftMs: 1000 * left }) };
}

/** The start of a text that others wrote, on one line. */
function shown(text: string): string {
  return cut(escapeControls(text.slice(0, 100).replaceAll("\n", " ")), 24);
}
