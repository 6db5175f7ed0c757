import { rename, rm } from "node:fs/promises";
import { execa } from "execa";
import { fileFailure } from "../../formats/file-failure.js";
import { openTemporary } from "../../formats/temporary.js";
import { DitrunError } from "../../protocol/failure.js";
import type { VideoFormat, VideoWriter } from "./video-writer.js";

/** True if this ffmpeg can be started and has libx264. */
async function hasX264(ffmpeg: string): Promise<boolean> {
  const { failed, stdout } = await execa(ffmpeg, ["-hide_banner", "-encoders"], { reject: false, stdin: "ignore" });
  return !failed && /\blibx264\b/.test(stdout);
}

/** Streams raw frames into an ffmpeg process; undefined if there is no ffmpeg with libx264. */
export async function openFfmpegWriter(
  out: string,
  { width, height, fps }: VideoFormat,
  ffmpeg: string,
): Promise<VideoWriter | undefined> {
  if (!(await hasX264(ffmpeg))) return undefined;
  const temporary = await claim(out);
  const raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", `${width}x${height}`, "-framerate", `${fps}`];
  const encode = [
    "-an",
    "-c:v",
    "libx264",
    "-crf",
    "17",
    "-pix_fmt",
    "yuv420p",
    "-movflags",
    "+faststart",
    "-f",
    "mp4",
  ];
  const child = execa(ffmpeg, ["-v", "error", "-y", ...raw, "-i", "pipe:0", ...encode, temporary], {
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
    const last = stderr.trim().split("\n").at(-1);
    const how = signal ? `was ended by ${signal}` : `exited with code ${exitCode ?? "unknown"}`;
    return new DitrunError(`Cannot write ${out}: ffmpeg ${how}${last ? `, saying “${last}”` : ""}.`);
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
      await rename(temporary, out).catch((error: unknown) => {
        throw new DitrunError(`Cannot rename ${temporary} to ${out}: ${fileFailure(error)}.`);
      });
    },
    abort: async () => {
      child.kill("SIGKILL");
      await child;
      await rm(temporary, { force: true });
    },
  };
}

/** Makes the empty temporary file, so that a missing or read-only folder is known before the first frame. @returns its name. */
async function claim(out: string): Promise<string> {
  const { name, file } = await openTemporary(out).catch((error: unknown) => {
    throw new DitrunError(`Cannot write ${out}: ${fileFailure(error)}.`);
  });
  await file.close();
  return name;
}
