import { DitrunError } from "../../failure.js";
import type { LatentSize } from "../schema.js";

/** Pixels of the latent's patches: 8 of the VAE times 2 of the transformer. */
const STEP = 16;
/** What video encoders take. */
const LONGEST = 16_384;

export interface VideoSize {
  readonly width: number;
  readonly height: number;
}

/** `WIDTH*HEIGHT` (or with x), both multiples of 16. @throws DitrunError with the nearest size that can be made. */
export function parseSize(text: string): VideoSize {
  const [, width, height] = /^(\d{1,5})[*x×](\d{1,5})$/.exec(text) ?? [];
  if (width === undefined || height === undefined) {
    throw new DitrunError(
      "ERR_OPTION_VALUE",
      `--size is "${text}"; it must be WIDTH*HEIGHT in pixels, such as 832*480.`,
    );
  }
  const size = { width: Number(width), height: Number(height) };
  if (Math.max(size.width, size.height) > LONGEST) {
    throw new DitrunError(
      "ERR_VIDEO_SIZE",
      `--size is ${text}, but a side of a video has at most ${LONGEST} pixels: choose a smaller one.`,
    );
  }
  const nearest = (pixels: number) => Math.max(STEP, Math.round(pixels / STEP) * STEP);
  if (size.width !== nearest(size.width) || size.height !== nearest(size.height)) {
    throw new DitrunError(
      "ERR_VIDEO_SIZE",
      `--size is ${text}, but both sides of a video must be multiples of ${STEP}: the nearest is ${nearest(size.width)}*${nearest(size.height)}.`,
    );
  }
  return size;
}

/** Frames come as one and then in fours. @throws DitrunError with the nearest numbers that can be made. */
export function checkFrames(frames: number): number {
  if (frames % 4 === 1) return frames;
  const below = Math.max(1, Math.floor((frames - 1) / 4) * 4 + 1);
  throw new DitrunError(
    "ERR_VIDEO_SIZE",
    `--frames is ${frames}, but a video has 4n + 1 frames: choose ${below} or ${below + 4}.`,
  );
}

/** The latent of a video: an eighth of its pixels each way, a quarter of its frames after the first. */
export function latentOf({ width, height }: VideoSize, frames: number): LatentSize {
  return { frames: (frames - 1) / 4 + 1, height: height / 8, width: width / 8 };
}
