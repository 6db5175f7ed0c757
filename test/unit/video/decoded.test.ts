import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { openVideo } from "../../../src/video/open-video.js";
import { decode, probe, probeStream, psnr, testWithFfmpeg } from "./ffmpeg.js";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-video-"));
});
afterAll(() => rm(dir, { recursive: true }));

const noFfmpeg = "ditrun-test-there-is-no-such-program";
const encoders = [
  ["ffmpeg", "ffmpeg (libx264)"],
  [noFfmpeg, "WebAssembly H.264"],
] as const;
type Format = { width: number; height: number; fps: number };

async function write(ffmpeg: string, name: string, format: Format, frames: readonly Uint8Array[]) {
  const video = await openVideo(join(dir, name), format, ffmpeg);
  for (const frame of frames) await video.write(frame);
  expect(await video.finish()).toBe(join(dir, name));
  return video.encoder;
}

const patches = [
  [220, 20, 20],
  [20, 20, 220],
  [20, 190, 20],
  [230, 220, 30],
  [20, 210, 220],
  [200, 30, 200],
  [16, 16, 16],
  [235, 235, 235],
] as const;

/** Vertical stripes of saturated colours. */
function stripes({ width, height }: Format): Uint8Array {
  const rgb = new Uint8Array(3 * width * height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    rgb.set(patches[Math.floor(((pixel % width) * patches.length) / width)] ?? [], 3 * pixel);
  }
  return rgb;
}

/** Smooth waves that move: what a video encoder is good at. */
function waves({ width, height }: Format, index: number): Uint8Array {
  const rgb = new Uint8Array(3 * width * height);
  const wave = (phase: number) => Math.round(127.5 + 100 * Math.sin(phase));
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const colour = [wave(x / 17 + index / 5), wave(y / 13 - index / 7), wave((x + y) / 29 + index / 9)];
      rgb.set(colour, 3 * (y * width + x));
    }
  return rgb;
}

describe.each(encoders)("an MP4 of %s", (ffmpeg, encoder) => {
  testWithFfmpeg.each([
    ["high definition, by BT.709", { width: 1280, height: 48, fps: 16 }, "bt709"],
    ["below, by BT.601", { width: 256, height: 48, fps: 24 }, "smpte170m"],
    ["upright and above 576 rows, by BT.709", { width: 256, height: 592, fps: 25 }, "bt709"],
  ])("shows the colours that it was given, and tells them: %s", async (_, format, matrix) => {
    expect(await write(ffmpeg, "colours.mp4", format, [stripes(format), stripes(format)])).toBe(encoder);
    expect(await probe(join(dir, "colours.mp4"))).toMatchObject({
      ...{ codec_name: "h264", pix_fmt: "yuv420p", width: `${format.width}`, height: `${format.height}` },
      ...{ avg_frame_rate: `${format.fps}/1`, nb_read_frames: "2" },
    });
    // Each place of its own: some players read the container alone, others the stream.
    const tags = { color_range: "tv", color_space: matrix, color_transfer: "bt709", color_primaries: "bt709" };
    expect(await probeStream(join(dir, "colours.mp4"))).toMatchObject(tags);
    const file = await readFile(join(dir, "colours.mp4"));
    const colr = file.subarray(file.indexOf("colrnclx"));
    expect([...colr.subarray(8, 15)]).toEqual([0, 1, 0, 1, 0, matrix === "bt709" ? 1 : 6, 0]);
    const frames = await decode(join(dir, "colours.mp4"), format);
    expect(frames.length).toBe(2);
    for (const frame of frames)
      for (const [index, colour] of patches.entries()) {
        const x = Math.floor(((index + 0.5) * format.width) / patches.length);
        const from = 3 * (Math.floor(format.height / 2) * format.width + x);
        const off = colour.map((value, channel) => Math.abs(value - (frame[from + channel] ?? Number.NaN)));
        expect(Math.max(...off), `${colour} is ${frame.subarray(from, from + 3).join()}`).toBeLessThanOrEqual(5);
      }
  });

  testWithFfmpeg("keeps every frame, their rate and what is to be seen", async () => {
    const fps = 10;
    const format = { width: 160, height: 96, fps };
    const frames = Array.from({ length: 13 }, (_, index) => waves(format, index));
    expect(await write(ffmpeg, "waves.mp4", format, frames)).toBe(encoder);
    const stream = await probe(join(dir, "waves.mp4"));
    expect(stream).toMatchObject({ avg_frame_rate: `${fps}/1`, nb_read_frames: "13" });
    expect(Number(stream.duration)).toBeCloseTo(13 / fps, 2);
    const decoded = await decode(join(dir, "waves.mp4"), format);
    expect(decoded.length).toBe(13);
    // Chroma of half the resolution alone costs some of it; both encoders are at 40 and above.
    const quality = frames.map((frame, index) => psnr(frame, decoded[index] ?? new Uint8Array(frame.length)));
    expect(Math.min(...quality)).toBeGreaterThan(38);
  });
});

testWithFfmpeg.each(encoders)("rates that are no whole numbers are kept by %s", async (ffmpeg) => {
  const format = { width: 64, height: 48, fps: 23.976 };
  await write(ffmpeg, "film.mp4", format, [waves(format, 0), waves(format, 1)]);
  const [frames = 0, seconds = 1] = ((await probe(join(dir, "film.mp4"))).avg_frame_rate ?? "").split("/").map(Number);
  expect(frames / seconds).toBeCloseTo(23.976, 3);
});
