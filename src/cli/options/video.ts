import { usualOf } from "../../models/wan/presets.js";
import { asText, type Option, optional, type Values, whole } from "../option.js";

/** An hour at the published rate, and a typing mistake beyond. */
const MOST_FRAMES = 57_601;

/** Of every command that is about videos of one size. */
export const videoOptions = {
  size: optional({ value: "WIDTH*HEIGHT", describe: "Pixels", usual: usualOf("size") }, asText),
  frames: optional({ value: "N", describe: "Frames: 4n + 1", usual: usualOf("frames") }, whole(1, MOST_FRAMES)),
} satisfies Record<string, Option<unknown>>;

export type VideoOptions = Values<typeof videoOptions>;
