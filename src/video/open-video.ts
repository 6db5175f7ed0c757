import { access } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { DitrunError } from "../failure.js";
import { numbered } from "../files/free-name.js";
import { checkOutputFile } from "../files/output-file.js";
import { ffmpegFault, openFfmpegWriter } from "./ffmpeg-writer.js";
import { keepFrames } from "./keeping-writer.js";
import { openPngWriter } from "./png-writer.js";
import type { VideoFormat, VideoTarget, VideoWriter } from "./video-writer.js";
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
      "ERR_VIDEO_FORMAT",
      `A video of ${width}×${height} pixels at ${fps} frames per second cannot be written: width and height must be even, and the rate from 1 to 1000.`,
    );
  if (out.endsWith("/")) return;
  if (!out.toLowerCase().endsWith(".mp4"))
    throw new DitrunError(
      "ERR_VIDEO_FORMAT",
      `Cannot tell what --out "${out}" should be: end it in .mp4 for a video, or in / for a folder of PNG frames.`,
    );
  await checkOutputFile(out, true);
}

/**
 * Opens `out` for writing: a name ending in .mp4 becomes H.264 video, by the system's ffmpeg where a first frame shows that it can
 * write there, else by a WebAssembly encoder; a name ending in / becomes a folder of PNG frames.
 * Where an encoder of a video fails later, its frames go to the other one, to the temporary folder, or into PNG files. With
 * `elsewhere: false` only the other encoder may take them, and the video is written to `out` or not at all.
 * Throws DitrunError as checkVideo does; so do the writer's own functions when the disk is full or the encoder fails.
 */
export async function openVideo(
  out: string,
  format: VideoFormat,
  ffmpeg = "ffmpeg",
  options: Partial<Omit<VideoTarget, "out">> & { readonly elsewhere?: boolean } = {},
): Promise<VideoWriter> {
  const { overwrite = true, warn = process.emitWarning, metadata, elsewhere = true } = options;
  await checkVideo(out, format);
  const target = { out, overwrite, warn, metadata };
  const writer = out.endsWith("/")
    ? await openPngWriter(target, format)
    : await openMp4Writer(target, format, ffmpeg, elsewhere);
  return checkFrames(writer, format.width * format.height * 3);
}

async function openMp4Writer(
  target: VideoTarget,
  format: VideoFormat,
  ffmpeg: string,
  elsewhere: boolean,
): Promise<VideoWriter> {
  const { out, warn } = target;
  const temporary = join(tmpdir(), basename(out));
  const frames = `${out.slice(0, -".mp4".length)}-frames/`;
  const byWasm = { what: "the WebAssembly encoder writes the video", open: () => openWasmWriter(target, format) };
  const otherPlaces = [
    {
      what: `the video goes to ${temporary}`,
      open: () => openWasmWriter({ ...target, out: temporary, overwrite: false }, format),
    },
    {
      what: `they go into ${frames} as PNG files`,
      open: () => openPngWriter({ ...target, out: frames, overwrite: false }, format),
    },
  ];
  const waysOut = elsewhere ? otherPlaces : [];
  const fault = await ffmpegFault(target, format, ffmpeg);
  if (fault === undefined) {
    return keepFrames(await openFfmpegWriter(target, format, ffmpeg), [byWasm, ...waysOut], warn);
  }
  if (!fault.absent) warn(`ffmpeg cannot write ${out}: ${fault.why}. ${sentence(byWasm.what)} instead.`);
  return keepFrames(await byWasm.open(), waysOut, warn);
}

/** The name under which a video is written if nobody else takes it before: that of the target, or the next free number. */
export async function freeName({ out, overwrite }: Pick<VideoTarget, "out" | "overwrite">): Promise<string> {
  if (overwrite || out.endsWith("/")) return out;
  for (let number = 1; ; number++) {
    const name = numbered(out, number);
    const taken = await access(name).then(
      () => true,
      () => false,
    );
    if (!taken) return name;
  }
}

const sentence = (words: string) => words.charAt(0).toUpperCase() + words.slice(1);

function checkFrames(writer: VideoWriter, frameBytes: number): VideoWriter {
  return {
    get encoder() {
      return writer.encoder;
    },
    write: async (frame) => {
      if (frame.byteLength !== frameBytes)
        throw new DitrunError(
          "ERR_INTERNAL",
          `A frame of this video has ${frameBytes} bytes, but ${frame.byteLength} were given.`,
        );
      await writer.write(frame);
    },
    finish: () => writer.finish(),
    abort: () => writer.abort(),
  };
}
