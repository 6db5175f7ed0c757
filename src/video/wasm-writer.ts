import { rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { DitrunError, messageOf } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { takeName } from "../files/free-name.js";
import { openTemporary } from "../files/temporary.js";
import { colourOf } from "./colour.js";
import { EncoderThreads } from "./encoder-threads.js";
import { mp4File } from "./mp4-file.js";
import { groupFrames } from "./picture-group.js";
import type { VideoFormat, VideoTarget, VideoWriter } from "./video-writer.js";

/** The most that are of use: 81 frames are seven groups. */
const MOST_THREADS = 8;
/** Width and height of a sample entry have 16 bits. */
const MOST_PIXELS = 65_535;

/**
 * Encodes in WebAssembly (minih264), on a thread for each core; the compressed video stays in memory until `finish` writes it.
 * @param threads at most. @throws DitrunError where the encoder cannot start, or the file cannot be made.
 */
export async function openWasmWriter(
  { out, overwrite, metadata }: VideoTarget,
  format: VideoFormat,
  threads = Math.min(availableParallelism(), MOST_THREADS),
): Promise<VideoWriter> {
  const { width, height, frames = Number.POSITIVE_INFINITY } = format;
  if (Math.max(width, height) > MOST_PIXELS)
    throw new DitrunError(
      "ERR_VIDEO_FORMAT",
      `Cannot write ${out} of ${width}×${height} pixels: the WebAssembly H.264 encoder takes ${MOST_PIXELS} at most; write PNG frames with --out frames/.`,
    );
  const colour = colourOf(format);
  const failure = (error: unknown) =>
    new DitrunError(
      "ERR_VIDEO_ENCODER",
      `Cannot write ${out}: the WebAssembly H.264 encoder failed (${messageOf(error)}); install ffmpeg, or write PNG frames with --out frames/.`,
    );
  const attempt = <T>(work: Promise<T>): Promise<T> =>
    work.catch((error: unknown) => {
      throw failure(error);
    });
  const encoder = await attempt(
    EncoderThreads.open(format, colour, Math.min(threads, Math.ceil(frames / groupFrames))),
  );
  const { name: temporary, file } = await openTemporary(out).catch(async (error: unknown) => {
    await encoder.close();
    throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${out}: ${fileFailure(error)}.`, { cause: error });
  });

  return {
    encoder: "WebAssembly H.264",
    write: (frame) => attempt(encoder.add(frame)),
    finish: async () => {
      const parts = await attempt(encoder.finish().then((groups) => mp4File(groups, format, colour, metadata)));
      await encoder.close();
      try {
        for (const part of parts) await file.appendFile(part);
        await file.close();
        return await takeName(temporary, out, overwrite);
      } catch (error) {
        await rm(temporary, { force: true });
        throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${out}: ${fileFailure(error)}.`, { cause: error });
      }
    },
    abort: async () => {
      await encoder.close();
      await file.close();
      await rm(temporary, { force: true });
    },
  };
}
