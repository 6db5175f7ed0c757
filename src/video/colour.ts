import type { VideoFormat } from "./video-writer.js";

/** How a video's YCbCr relates to its RGB, as written into every stream: always limited range (16 to 235). */
export interface Colour {
  /** Weights of red and blue in luma; green has the rest. */
  readonly red: number;
  readonly blue: number;
  /** Code points of ITU-T H.273. */
  readonly primaries: number;
  readonly transfer: number;
  readonly matrix: number;
  /** The matrix as ffmpeg names it. */
  readonly ffmpegMatrix: string;
}

/** Frames are in the primaries and the transfer of BT.709 (sRGB's primaries), whatever the matrix. */
const pixels = { primaries: 1, transfer: 1 };
const bt709: Colour = { ...pixels, red: 0.2126, blue: 0.0722, matrix: 1, ffmpegMatrix: "bt709" };
const bt601: Colour = { ...pixels, red: 0.299, blue: 0.114, matrix: 6, ffmpegMatrix: "smpte170m" };

/**
 * BT.709's matrix for high definition, BT.601's below. Both are tagged; the limit between them is the one by which players guess
 * where they do not look at tags, so that those are right too.
 */
export function colourOf({ width, height }: Pick<VideoFormat, "width" | "height">): Colour {
  return width >= 1280 || height > 576 ? bt709 : bt601;
}
