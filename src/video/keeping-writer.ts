import { messageOf } from "../failure.js";
import type { VideoWriter } from "./video-writer.js";

/** Frames of a minute of 1280 × 720 at the published rate. A longer video is only as safe as its encoder. */
export const mostKeptBytes = 2.7e9;

/** A way to write the same video: by another encoder, or to another place. */
export interface WayOut {
  /** For the user: what is done instead. */
  readonly what: string;
  open(): Promise<VideoWriter>;
}

/**
 * A writer that keeps its frames until they are written: where it fails, the next way out gets them all and goes on.
 * @param writer the one to begin with. @param limit of the bytes kept; beyond it nothing is.
 * @returns one whose functions throw what the first writer threw, once no way out is left.
 */
export function keepFrames(
  writer: VideoWriter,
  waysOut: readonly WayOut[],
  warn: (sentence: string) => void,
  limit = mostKeptBytes,
): VideoWriter {
  let current = writer;
  let kept: Uint8Array[] = [];
  let bytes = 0;
  const left = [...waysOut];

  /** Has all kept frames written by the first way out that can, and then `last` done with it. */
  const goOn = async <T>(error: unknown, last: (writer: VideoWriter) => Promise<T>): Promise<T> => {
    let fault = error;
    for (let way = left.shift(); way !== undefined && bytes <= limit; way = left.shift()) {
      warn(`${messageOf(fault)} The frames are kept: ${way.what}.`);
      await current.abort().catch(() => undefined);
      try {
        current = await way.open();
        for (const frame of kept) await current.write(frame);
        return await last(current);
      } catch (next) {
        fault = next;
      }
    }
    throw error;
  };

  return {
    get encoder() {
      return current.encoder;
    },
    write: async (frame) => {
      bytes += frame.byteLength;
      if (bytes <= limit) kept.push(frame);
      else kept = [];
      await current.write(frame).catch((error: unknown) => goOn(error, async () => undefined));
    },
    finish: () => current.finish().catch((error: unknown) => goOn(error, (other) => other.finish())),
    abort: () => {
      // What the encoder says of its end is no fault to find a way out of.
      left.length = 0;
      return current.abort();
    },
  };
}
