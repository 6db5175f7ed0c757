import { execa } from "execa";
import { test } from "vitest";

const { failed } = await execa("ffmpeg", ["-version"], { reject: false });
// Where these tests are to run, they must: a machine that checks the project has ffmpeg.
if (failed && process.env.CI) throw new Error("There is no ffmpeg, but CI is set: .ci/run installs it.");
if (failed) console.warn("There is no ffmpeg here: tests that decode MP4 files are skipped.");

/** For tests that decode a file, or encode it with ffmpeg. */
export const testWithFfmpeg = test.skipIf(failed);

/** All frames of a video as RGB, [height, width, 3] each, in the colours that its tags say. */
export async function decode(file: string, { width, height }: { width: number; height: number }) {
  // Chroma is interpolated and nothing is rounded twice, as a good player does.
  const flags = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp";
  const { stdout } = await execa(
    "ffmpeg",
    ["-v", "error", "-i", file, "-vf", `scale=${flags}`, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
    { encoding: "buffer" },
  );
  const bytes = 3 * width * height;
  return Array.from({ length: stdout.length / bytes }, (_, i) => stdout.subarray(i * bytes, (i + 1) * bytes));
}

/** What ffprobe reads of the video stream. */
export async function probe(file: string, ...input: string[]): Promise<Record<string, string>> {
  const entries = "codec_name,width,height,pix_fmt,color_range,color_space,color_transfer,color_primaries";
  const { stdout } = await execa("ffprobe", [
    ...["-v", "error", "-select_streams", "v", "-count_frames"],
    ...[
      "-show_entries",
      `stream=${entries},avg_frame_rate,nb_read_frames,duration`,
      "-of",
      "default=nw=1",
      ...input,
      file,
    ],
  ]);
  return Object.fromEntries(stdout.split("\n").map((line) => line.split("=")));
}

/** The same of the H.264 stream alone, as a file without a container. */
export async function probeStream(file: string): Promise<Record<string, string>> {
  const stream = `${file}.h264`;
  // Asked for by name: a length in front of a unit may look like a start code, and then ffmpeg leaves it there.
  const filter = ["-bsf:v", "h264_mp4toannexb"];
  await execa("ffmpeg", ["-v", "error", "-y", "-i", file, "-c", "copy", ...filter, "-f", "h264", stream]);
  // So short a stream is not known by its looks.
  return probe(stream, "-f", "h264");
}

/** Peak signal-to-noise ratio in dB of 8-bit values. */
export function psnr(a: Uint8Array, b: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += ((a[i] ?? 0) - (b[i] ?? Number.NaN)) ** 2;
  return 10 * Math.log10((255 ** 2 * a.length) / sum);
}
