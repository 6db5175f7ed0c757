import { DitrunError } from "../../protocol/failure.js";
import { openFfmpegWriter } from "./ffmpeg-writer.js";
import { openPngWriter } from "./png-writer.js";
import type { VideoFormat, VideoWriter } from "./video-writer.js";
import { openWasmWriter } from "./wasm-writer.js";

/**
 * Opens `out` for writing: a name ending in .mp4 becomes H.264 video, by the system's ffmpeg if it has libx264, else by
 * a WebAssembly encoder; a name ending in / becomes a folder of PNG frames.
 * Throws DitrunError for any other name, for a format that video cannot have, and where the target cannot be written;
 * so do the writer's own functions when the disk is full or the encoder fails.
 */
export async function openVideo(out: string, format: VideoFormat, ffmpeg = "ffmpeg"): Promise<VideoWriter> {
  const { width, height, fps } = format;
  const even = (n: number) => Number.isInteger(n) && n > 0 && n % 2 === 0;
  if (!even(width) || !even(height) || !(fps > 0 && fps <= 1000))
    throw new DitrunError(
      `A video of ${width}×${height} pixels at ${fps} frames per second cannot be written: width and height must be even, and the rate above 0.`,
    );
  const writer = await open(out, format, ffmpeg);
  return checkFrames(writer, width * height * 3);
}

async function open(out: string, format: VideoFormat, ffmpeg: string): Promise<VideoWriter> {
  if (out.endsWith("/")) return openPngWriter(out, format);
  if (!out.toLowerCase().endsWith(".mp4"))
    throw new DitrunError(
      `Cannot tell what ${out} should be: end it in .mp4 for a video, or in / for a folder of PNG frames.`,
    );
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
