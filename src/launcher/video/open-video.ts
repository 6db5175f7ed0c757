import { checkOutputFile } from "../../formats/output-file.js";
import { DitrunError } from "../../protocol/failure.js";
import { openFfmpegWriter } from "./ffmpeg-writer.js";
import { openPngWriter } from "./png-writer.js";
import type { VideoFormat, VideoWriter } from "./video-writer.js";
import { openWasmWriter } from "./wasm-writer.js";

/**
 * Finds out whether `out` can be written, without making it.
 * Throws DitrunError for a name that is neither a video's nor a folder's, for a format that video cannot have, and where the
 * target cannot be written.
 */
export async function checkVideo(out: string, { width, height, fps }: VideoFormat): Promise<void> {
  const even = (n: number) => Number.isInteger(n) && n > 0 && n % 2 === 0;
  if (!even(width) || !even(height) || !(fps >= 1 && fps <= 1000))
    throw new DitrunError(
      `A video of ${width}×${height} pixels at ${fps} frames per second cannot be written: width and height must be even, and the rate from 1 to 1000.`,
    );
  if (out.endsWith("/")) return;
  if (!out.toLowerCase().endsWith(".mp4"))
    throw new DitrunError(
      `Cannot tell what --out "${out}" should be: end it in .mp4 for a video, or in / for a folder of PNG frames.`,
    );
  await checkOutputFile(out, true);
}

/**
 * Opens `out` for writing: a name ending in .mp4 becomes H.264 video, by the system's ffmpeg if it has libx264, else by
 * a WebAssembly encoder; a name ending in / becomes a folder of PNG frames.
 * Throws DitrunError as checkVideo does; so do the writer's own functions when the disk is full or the encoder fails.
 */
export async function openVideo(out: string, format: VideoFormat, ffmpeg = "ffmpeg"): Promise<VideoWriter> {
  await checkVideo(out, format);
  const writer = await open(out, format, ffmpeg);
  return checkFrames(writer, format.width * format.height * 3);
}

async function open(out: string, format: VideoFormat, ffmpeg: string): Promise<VideoWriter> {
  if (out.endsWith("/")) return openPngWriter(out, format);
  return (await openFfmpegWriter(out, format, ffmpeg)) ?? openWasmWriter(out, format);
}

function checkFrames(writer: VideoWriter, frameBytes: number): VideoWriter {
  return {
    encoder: writer.encoder,
    write: async (frame) => {
      if (frame.byteLength !== frameBytes)
        throw new DitrunError(`A frame of this video has ${frameBytes} bytes, but ${frame.byteLength} were given.`);
      await writer.write(frame);
    },
    finish: () => writer.finish(),
    abort: () => writer.abort(),
  };
}
