// How fast an MP4 is written: without ffmpeg on 1, 2, 4, … threads, beside ffmpeg's libx264, on the same frames.
//   npx tsx bench/mp4.ts [--frames 81] [--size 832*480] [--threads 1,2,4] [--every MS]
// All frames come at once, or one every MS milliseconds. Frames are a zoom into the Mandelbrot set, made by ffmpeg; quality is the
// mean PSNR of luma and chroma that ffmpeg finds between the file and the frames. Prints a table and one JSON document.
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";
import { execa } from "execa";
import { openFfmpegWriter } from "../src/video/ffmpeg-writer.js";
import type { VideoWriter } from "../src/video/video-writer.js";
import { openWasmWriter } from "../src/video/wasm-writer.js";

const { values } = parseArgs({
  options: {
    frames: { type: "string", default: "81" },
    size: { type: "string", default: "832*480" },
    threads: { type: "string", default: "1,2,4" },
    every: { type: "string", default: "0" },
  },
});
const [width = 832, height = 480] = values.size.split("*").map(Number);
const [frames, every] = [Number(values.frames), Number(values.every)];
const format = { width, height, fps: 16, frames };
const folder = mkdtempSync(join(tmpdir(), "ditrun-bench-"));

async function measure(name: string, open: (out: string) => Promise<VideoWriter>, source: Uint8Array) {
  const out = join(folder, "video.mp4");
  const opening = performance.now();
  const video = await open(out);
  const start = performance.now();
  const cpu = process.cpuUsage();
  for (let index = 0; index < frames; index++) {
    const due = start + index * every - performance.now();
    if (due > 0) await setTimeout(due);
    const bytes = 3 * width * height;
    await video.write(source.subarray(index * bytes, (index + 1) * bytes));
  }
  // As a decoder that does not wait for the encoder: its last frame is there once it was to come.
  const lastFrame = start + (frames - 1) * every;
  await video.finish();
  const end = performance.now();
  const { user, system } = process.cpuUsage(cpu);
  const psnr = await psnrOf(out);
  return {
    name,
    openMs: Math.round(start - opening),
    framesPerSecond: +((1e3 * frames) / (end - start)).toFixed(1),
    tailMs: Math.round(end - lastFrame),
    cpuMsPerFrame: +((user + system) / 1e3 / frames).toFixed(1),
    bytes: statSync(out).size,
    psnr,
  };
}

const raw = join(folder, "frames.rgb");

async function psnrOf(file: string): Promise<number> {
  const input = [
    "-f",
    "rawvideo",
    "-pix_fmt",
    "rgb24",
    "-video_size",
    `${width}x${height}`,
    "-framerate",
    "16",
    "-i",
    raw,
  ];
  const { stderr } = await execa("ffmpeg", ["-i", file, ...input, "-lavfi", "psnr", "-f", "null", "-"]);
  return Number(/PSNR .*average:([\d.]+)/.exec(stderr)?.[1]);
}

try {
  const zoom = ["-f", "lavfi", "-i", `mandelbrot=size=${width}x${height}:rate=16`, "-frames:v", `${frames}`];
  const made = await execa("ffmpeg", ["-v", "error", ...zoom, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], {
    encoding: "buffer",
    maxBuffer: 2 ** 31,
  });
  writeFileSync(raw, made.stdout);
  const target = (out: string) => ({ out, overwrite: true, warn: console.warn });
  const rows = [];
  for (const threads of values.threads.split(",").map(Number)) {
    const name = `WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}`;
    rows.push(await measure(name, (out) => openWasmWriter(target(out), format, threads), made.stdout));
  }
  rows.push(
    await measure("ffmpeg libx264 crf 17", (out) => openFfmpegWriter(target(out), format, "ffmpeg"), made.stdout),
  );
  console.table(rows);
  const cores = { cores: availableParallelism(), cpu: cpus()[0]?.model };
  console.log(JSON.stringify({ date: new Date().toISOString(), ...cores, size: values.size, frames, every, rows }));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
