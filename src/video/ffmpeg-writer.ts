import { rm, stat } from "node:fs/promises";
import { execa } from "execa";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { takeName } from "../files/free-name.js";
import { openTemporary } from "../files/temporary.js";
import { colourOf } from "./colour.js";
import type { VideoFormat, VideoMetadata, VideoTarget, VideoWriter } from "./video-writer.js";

const TRIAL_MILLISECONDS = 30_000;

/** Raw frames on standard input to an H.264 file. */
function argumentsFor(format: VideoFormat, file: string, metadata: VideoMetadata | undefined): string[] {
  const { width, height, fps } = format;
  const { ffmpegMatrix } = colourOf(format);
  // The filter converts the pixels; what stands before and after it tells the encoder and the container of every ffmpeg since 4.2.
  const filters = [
    `scale=out_color_matrix=${ffmpegMatrix}:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int`,
    "format=yuv420p",
    `setparams=range=tv:colorspace=${ffmpegMatrix}:color_primaries=bt709:color_trc=bt709`,
  ];
  return [
    ...["-v", "error", "-y"],
    ...["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", `${width}x${height}`, "-framerate", `${fps}`],
    ...["-i", "pipe:0", "-an", "-vf", filters.join(",")],
    ...["-c:v", "libx264", "-crf", "17", "-pix_fmt", "yuv420p"],
    ...["-colorspace", ffmpegMatrix, "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"],
    ...(metadata ? ["-metadata", `title=${metadata.title}`, "-metadata", `comment=${metadata.comment}`] : []),
    // Named as a file, since a colon in a bare name ends a protocol and a dash at its start makes it an option.
    ...["-movflags", "+faststart", "-f", "mp4", `file:${file}`],
  ];
}

/**
 * Tries whether this ffmpeg can write such a video there, by one black frame that is removed again.
 * @returns undefined if it can, else why not, `absent` where there is no such program.
 * @throws DitrunError where not even an empty file can be made.
 */
export async function ffmpegFault(
  { out, metadata }: VideoTarget,
  format: VideoFormat,
  ffmpeg: string,
): Promise<undefined | { readonly absent: boolean; readonly why: string }> {
  const file = await claim(out);
  try {
    const { failed, code, stderr, exitCode, signal, timedOut } = await execa(
      ffmpeg,
      argumentsFor(format, file, metadata),
      {
        reject: false,
        input: new Uint8Array(format.width * format.height * 3),
        stdout: "ignore",
        timeout: TRIAL_MILLISECONDS,
        killSignal: "SIGKILL",
      },
    );
    if (code === "ENOENT" || code === "EACCES") return { absent: true, why: "it cannot be started" };
    if (timedOut) return { absent: false, why: `it did not answer within ${TRIAL_MILLISECONDS / 1000} s` };
    if (failed) return { absent: false, why: ending(exitCode, signal, stderr) };
    const { size } = await stat(file);
    return size > 0 ? undefined : { absent: false, why: "it writes nothing" };
  } finally {
    await rm(file, { force: true });
  }
}

/** Streams raw frames into an ffmpeg process. */
export async function openFfmpegWriter(
  { out, overwrite, metadata }: VideoTarget,
  format: VideoFormat,
  ffmpeg: string,
): Promise<VideoWriter> {
  const temporary = await claim(out);
  const child = execa(ffmpeg, argumentsFor(format, temporary, metadata), {
    reject: false,
    // Ctrl-C is for the launcher, which ends ffmpeg itself; without a launcher its input ends.
    detached: true,
    stdin: "pipe",
    stdout: "ignore",
    stderr: "pipe",
  });
  const { stdin } = child;
  // A broken pipe only says that ffmpeg ended; why it ended is in its exit and its stderr, which `failure` reports.
  stdin.on("error", () => {});

  const failure = async (): Promise<DitrunError> => {
    const { exitCode, signal, stderr } = await child;
    await rm(temporary, { force: true });
    return new DitrunError("ERR_VIDEO_ENCODER", `Cannot write ${out}: ffmpeg ${ending(exitCode, signal, stderr)}.`);
  };

  return {
    encoder: "ffmpeg (libx264)",
    write: async (frame) => {
      const broken = await new Promise<Error | null | undefined>((resolve) => stdin.write(frame, resolve));
      if (broken) throw await failure();
    },
    finish: async () => {
      stdin.end();
      const { failed } = await child;
      if (failed) throw await failure();
      return takeName(temporary, out, overwrite).catch((error: unknown) => {
        throw new DitrunError("ERR_FILE_WRITE", `Cannot rename ${temporary} to ${out}: ${fileFailure(error)}.`, {
          cause: error,
        });
      });
    },
    abort: async () => {
      child.kill("SIGKILL");
      await child;
      await rm(temporary, { force: true });
    },
  };
}

/** How ffmpeg ended, with its last line. */
function ending(exitCode: number | undefined, signal: string | undefined, stderr: string): string {
  const last = stderr.trim().split("\n").at(-1);
  const how = signal ? `was ended by ${signal}` : `exited with code ${exitCode ?? "unknown"}`;
  return `${how}${last ? `, saying “${last}”` : ""}`;
}

/** Makes the empty temporary file, so that a missing or read-only folder is known before the first frame. @returns its name. */
async function claim(out: string): Promise<string> {
  const { name, file } = await openTemporary(out).catch((error: unknown) => {
    throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${out}: ${fileFailure(error)}.`, { cause: error });
  });
  await file.close();
  return name;
}
