import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { colourOf } from "../../../src/video/colour.js";
import { EncoderThreads } from "../../../src/video/encoder-threads.js";
import { mp4File } from "../../../src/video/mp4-file.js";
import { groupFrames, type PictureGroup } from "../../../src/video/picture-group.js";
import { openWasmWriter } from "../../../src/video/wasm-writer.js";
import { decode, psnr, testWithFfmpeg } from "./ffmpeg.js";
import { expectMp4 } from "./mp4.js";

const format = { width: 64, height: 48, fps: 16 };

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-video-"));
});
afterAll(() => rm(dir, { recursive: true }));

/** A gradient whose green tells the frame. */
function frame(index: number): Uint8Array {
  const rgb = new Uint8Array(3 * format.width * format.height);
  for (let y = 0; y < format.height; y++)
    for (let x = 0; x < format.width; x++) rgb.set([2 * x, 6 * index, 2 * y], 3 * (y * format.width + x));
  return rgb;
}

const target = (name: string) => ({ out: join(dir, name), overwrite: true, warn: () => {} });

async function write(name: string, frames: number, threads: number): Promise<Buffer> {
  const video = await openWasmWriter(target(name), { ...format, frames }, threads);
  for (let index = 0; index < frames; index++) await video.write(frame(index));
  await video.finish();
  return readFile(join(dir, name));
}

/** Threads of this process. */
const threadsNow = async () => (await readdir("/proc/self/task")).length;

describe("groups of pictures on several threads", () => {
  test("are the same file, byte for byte, for any number of threads", async () => {
    const alone = await write("alone.mp4", 41, 1);
    await expectMp4(join(dir, "alone.mp4"), { ...format, frames: 41 });
    for (const threads of [2, 3, 4]) expect((await write("beside.mp4", 41, threads)).equals(alone)).toBe(true);
  });

  testWithFfmpeg.each([1, 2, groupFrames, groupFrames + 1, 41])("hold all of %d frames in order", async (frames) => {
    const file = join(dir, "all.mp4");
    await write("all.mp4", frames, 3);
    const { stderr } = await execa("ffmpeg", ["-v", "warning", "-i", file, "-f", "null", "-"]);
    expect(stderr).toBe("");
    const decoded = await decode(file, format);
    expect(decoded.length).toBe(frames);
    const quality = decoded.map((each, index) => psnr(frame(index), each));
    // A frame beside its neighbour has 37 dB.
    expect(Math.min(...quality)).toBeGreaterThan(40);
  });

  testWithFfmpeg("begin with pictures whose numbers alternate, and can be jumped to", async () => {
    await write("seek.mp4", 41, 2);
    const file = join(dir, "seek.mp4");
    const { stderr } = await execa("ffmpeg", ["-i", file, "-c", "copy", "-bsf:v", "trace_headers", "-f", "null", "-"]);
    const numbers = [...stderr.matchAll(/idr_pic_id .* = (\d+)/g)].map(([, number]) => Number(number));
    expect(numbers).toEqual([1, 2, 1, 2]);
    // The file must say so itself: ffmpeg finds out without it, other players do not.
    const bytes = await readFile(file);
    const table = bytes.subarray(bytes.indexOf("stss") + 8);
    const keys = Array.from({ length: table.readUInt32BE(0) }, (_, index) => table.readUInt32BE(4 + 4 * index) - 1);
    expect(keys).toEqual([0, 1, 2, 3].map((group) => group * groupFrames));
    const at = 30;
    const one = ["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"];
    const seconds = `${(at - 0.5) / format.fps}`;
    const { stdout } = await execa("ffmpeg", ["-v", "error", "-ss", seconds, "-i", file, ...one], {
      encoding: "buffer",
    });
    expect(psnr(frame(at), stdout)).toBeGreaterThan(40);
  });

  test("that are of different videos are refused", async () => {
    const colour = colourOf(format);
    const groups: PictureGroup[] = [];
    for (const width of [64, 80]) {
      const threads = await EncoderThreads.open({ ...format, width }, colour, 1);
      await threads.add(new Uint8Array(3 * width * format.height));
      groups.push(...(await threads.finish()));
      await threads.close();
    }
    expect(groups.length).toBe(2);
    expect(() => mp4File(groups, format, colour)).toThrow("different parameter sets");
    expect(() => mp4File([], format, colour)).toThrow("no frame");
  });
});

describe("an encoder that ends early", () => {
  test("leaves no thread and no file, in the middle and while it finishes", async () => {
    await write("before.mp4", 1, 2);
    const before = await threadsNow();
    const names = await readdir(dir);
    const first = await openWasmWriter(target("ended.mp4"), format, 3);
    for (let index = 0; index < 30; index++) await first.write(frame(index));
    await first.abort();
    const second = await openWasmWriter(target("ended.mp4"), format, 3);
    for (let index = 0; index < 30; index++) await second.write(frame(index));
    const finishing = expect(second.finish()).rejects.toThrow(/ended.mp4: the WebAssembly .* failed \(it was ended\)/);
    await second.abort();
    await finishing;
    expect(await readdir(dir)).toEqual(names);
    await expect.poll(threadsNow).toBeLessThanOrEqual(before);
  });

  test("says why, and does so before the first frame where it cannot begin", async () => {
    const before = await threadsNow();
    await expect(openWasmWriter(target("none.mp4"), { ...format, width: 63 }, 2)).rejects.toThrow(
      /Cannot write .*none.mp4: the WebAssembly H.264 encoder failed \(.*multiple of 2\); install ffmpeg/,
    );
    expect((await readdir(dir)).filter((name) => name.startsWith("none"))).toEqual([]);
    await expect.poll(threadsNow).toBeLessThanOrEqual(before);
  });

  test("takes a frame when it has room, not before", async () => {
    const threads = await EncoderThreads.open(format, colourOf(format), 1);
    let taken = 0;
    // All at once: as many are taken as wait for one thread, and the next when one of them is done.
    const adding = Array.from({ length: 5 * groupFrames }, (_, index) => threads.add(frame(index)).then(() => taken++));
    await Promise.resolve();
    await new Promise(setImmediate);
    expect(taken).toBeLessThan(2 * groupFrames);
    await Promise.all(adding);
    const groups = await threads.finish();
    await threads.close();
    expect(groups.map(({ samples }) => samples.length)).toEqual(Array.from({ length: 5 }, () => groupFrames));
  });
});
