import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { PNG } from "pngjs";
import { DitrunError, messageOf } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { isFrame } from "./png-writer.js";

/** A video to be looked at. */
export interface Frames {
  readonly width: number;
  readonly height: number;
  /** RGB of 8 bits, [height, width, 3] each, in the order of time. */
  readonly frames: AsyncIterable<Uint8Array>;
}

const unreadable = (path: string, why: string, cause?: unknown) =>
  new DitrunError("ERR_FILE_READ", `${path} could not be read: ${why}.`, { cause });

/**
 * Opens a video file, which ffmpeg decodes, or a folder with frame-00000.png, frame-00001.png, …
 * @throws DitrunError when it cannot be read, or there is no ffmpeg; also while frames are read.
 */
export async function openFrames(path: string): Promise<Frames> {
  const found = await stat(path).catch((error: unknown) => {
    throw unreadable(path, fileFailure(error), error);
  });
  return found.isDirectory() ? openFolder(path) : openFile(path);
}

async function openFolder(folder: string): Promise<Frames> {
  const names = (await readdir(folder)).filter(isFrame).sort();
  const [first] = names;
  if (first === undefined) throw unreadable(folder, "it has no frame-00000.png, frame-00001.png, …");
  const { width, height } = await readPng(join(folder, first));
  async function* frames() {
    for (const name of names) {
      const picture = await readPng(join(folder, name));
      if (picture.width !== width || picture.height !== height) {
        throw unreadable(join(folder, name), `it is not of ${width} × ${height}, as the first frame is`);
      }
      yield picture.rgb;
    }
  }
  return { width, height, frames: frames() };
}

async function readPng(path: string): Promise<{ width: number; height: number; rgb: Uint8Array }> {
  const bytes = await readFile(path).catch((error: unknown) => {
    throw unreadable(path, fileFailure(error), error);
  });
  try {
    const { width, height, data } = PNG.sync.read(bytes);
    return {
      width,
      height,
      rgb: Uint8Array.from({ length: 3 * width * height }, (_, i) => data[Math.floor(i / 3) * 4 + (i % 3)] ?? 0),
    };
  } catch (error) {
    throw unreadable(path, `it is no PNG (${messageOf(error)})`, error);
  }
}

/** What ffmpeg is given so that each pixel is the one that the stream stores, in the colours that its tags say. */
const exact = ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"];

async function openFile(path: string): Promise<Frames> {
  const entries = ["-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height", "-of", "csv=p=0"];
  const { stdout, stderr, failed, code } = await execa("ffprobe", [...entries, `file:${path}`], { reject: false });
  if (code === "ENOENT") {
    throw new DitrunError(
      "ERR_VIDEO_ENCODER",
      `${path} is read by ffmpeg, which is not there: install it, or compare folders of PNG frames.`,
    );
  }
  const [, width, height] = /^(\d+),(\d+)/.exec(stdout) ?? [];
  if (failed || width === undefined || height === undefined) {
    throw unreadable(
      path,
      stderr.split("\n").at(-1)?.replace(`file:${path}: `, "").replace(/\.$/, "") || "it has no video",
    );
  }
  return { width: Number(width), height: Number(height), frames: decoded(path, 3 * Number(width) * Number(height)) };
}

/** Frame by frame, as ffmpeg gives them. */
async function* decoded(path: string, bytes: number): AsyncIterable<Uint8Array> {
  const flags = ["-v", "error", "-i", `file:${path}`, ...exact, "-fps_mode", "passthrough"];
  const decoder = execa("ffmpeg", [...flags, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"], {
    ...{ encoding: "buffer", buffer: { stdout: false, stderr: true }, reject: false },
  });
  try {
    let rest = Buffer.alloc(0);
    for await (const chunk of decoder.stdout) {
      rest = Buffer.concat([rest, chunk]);
      for (; rest.length >= bytes; rest = rest.subarray(bytes)) yield rest.subarray(0, bytes);
    }
    const { failed, stderr } = await decoder;
    if (failed || rest.length > 0)
      throw unreadable(path, Buffer.from(stderr).toString().trim().split("\n")[0] || "it ends within a frame");
  } finally {
    decoder.kill();
  }
}
