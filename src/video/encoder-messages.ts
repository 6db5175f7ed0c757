import type { Colour } from "./colour.js";
import type { PictureGroup } from "./picture-group.js";

// Types alone: a thread that loads nothing but its encoder starts in half the time.

/** What a thread that encodes is told when it starts. */
export interface ThreadData {
  readonly width: number;
  readonly height: number;
  readonly colour: Colour;
}

/** What it is told then: the next frame of its group, [height, width, 3], or the group's end, with its number in the video. */
export type ThreadMessage =
  | { readonly is: "frame"; readonly rgb: Uint8Array }
  | { readonly is: "end"; readonly group: number };

/** What it says: that it can begin, that a frame is encoded, the whole group, or why it cannot go on. */
export type ThreadAnswer =
  | { readonly is: "ready" | "frame" }
  | { readonly is: "group"; readonly group: PictureGroup }
  | { readonly is: "failed"; readonly why: string };
