import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { PNG } from "pngjs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openVideo } from "../../../src/launcher/video/open-video.js";
import { expectMp4 } from "./mp4.js";

const format = { width: 64, height: 48, fps: 16 };
const noFfmpeg = "ditrun-test-there-is-no-such-program";
const { failed: ffmpegMissing } = await execa("ffmpeg", ["-version"], { reject: false });

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-video-"));
});
afterAll(() => rm(dir, { recursive: true }));

/** A gradient that moves: red by column, green by row, blue by frame. */
function frame(index: number): Uint8Array {
  const { width, height } = format;
  const rgb = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) rgb.set([x * 4, y * 5, index * 20], (y * width + x) * 3);
  return rgb;
}

/** A stand-in for ffmpeg: lists libx264, then does `body` with its last argument as $out. */
async function fakeFfmpeg(name: string, body: string): Promise<string> {
  const path = join(dir, name);
  await writeFile(
    path,
    `#!/bin/sh\ncase "$*" in *-encoders*) echo " V....D libx264 H.264"; exit 0;; esac\nfor out; do :; done\n${body}\n`,
  );
  await chmod(path, 0o755);
  return path;
}

const temporaries = async () => (await readdir(dir)).filter((name) => name.endsWith(".tmp"));

describe("mp4", () => {
  test("the WebAssembly encoder's file has all frames, the size and the rate", async () => {
    const out = join(dir, "wasm.mp4");
    const handlers = process.listeners("unhandledRejection");
    const video = await openVideo(out, format, noFfmpeg);
    expect(video.encoder).toBe("WebAssembly H.264");
    for (let i = 0; i < 9; i++) await video.write(frame(i));
    await video.finish();
    await expectMp4(out, { ...format, frames: 9 });
    expect(await temporaries()).toEqual([]);
    expect(process.listeners("unhandledRejection")).toEqual(handlers);
  });

  test.skipIf(ffmpegMissing)("ffmpeg's file has all frames, the size and the rate", async () => {
    const out = join(dir, "ffmpeg.mp4");
    const video = await openVideo(out, format);
    expect(video.encoder).toBe("ffmpeg (libx264)");
    for (let i = 0; i < 9; i++) await video.write(frame(i));
    await video.finish();
    await expectMp4(out, { ...format, frames: 9 });
    expect(await temporaries()).toEqual([]);
  });

  test("ffmpeg gets the frames as they are, and the file appears only when it is done", async () => {
    const out = join(dir, "piped.mp4");
    const video = await openVideo(out, format, await fakeFfmpeg("copy", 'cat > "$out"'));
    for (let i = 0; i < 30; i++) await video.write(frame(i));
    expect(await readdir(dir)).not.toContain("piped.mp4");
    await video.finish();
    const sent = Buffer.concat(Array.from({ length: 30 }, (_, i) => frame(i)));
    expect(sent.equals(await readFile(out))).toBe(true);
    expect(await temporaries()).toEqual([]);
  });

  test("an ffmpeg that fails is a sentence with its last line, in a write or at the end, and leaves nothing", async () => {
    const full = await fakeFfmpeg("full", 'echo "first" >&2; echo "av_write: No space left on device" >&2; exit 28');
    const message = /Cannot write .*f.mp4: ffmpeg exited with code 28, saying “av_write: No space left on device”\./;
    const writing = await openVideo(join(dir, "f.mp4"), format, full);
    await expect(
      (async () => {
        for (let i = 0; i < 10_000; i++) await writing.write(frame(i % 12));
      })(),
    ).rejects.toThrow(message);
    const ending = await openVideo(join(dir, "f.mp4"), format, full);
    await expect(ending.finish()).rejects.toThrow(message);
    const killed = await openVideo(join(dir, "f.mp4"), format, await fakeFfmpeg("killed", "kill -SEGV $$"));
    await expect(killed.finish()).rejects.toThrow(/ffmpeg was ended by SIGSEGV/);
    expect(await temporaries()).toEqual([]);
  });

  test("a writer that gives up leaves nothing", async () => {
    for (const ffmpeg of [noFfmpeg, await fakeFfmpeg("slow", 'cat > "$out"')]) {
      const video = await openVideo(join(dir, "given-up.mp4"), format, ffmpeg);
      await video.write(frame(0));
      await video.abort();
    }
    expect((await readdir(dir)).filter((name) => name.startsWith("given-up"))).toEqual([]);
  });
});

describe("frames", () => {
  test("of two runs that find a folder empty, only one gets it; one that gives up leaves it empty", async () => {
    const out = join(dir, "shared/");
    const both = await Promise.allSettled([openVideo(out, format), openVideo(out, format)]);
    const [writer] = both.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const reasons = both.flatMap((one) => (one.status === "rejected" ? [String(one.reason)] : []));
    expect(reasons).toEqual([expect.stringMatching(/frame-00000\.png/)]);
    await writer?.abort();
    expect(await readdir(out)).toEqual([]);
  });

  test("are PNG files with the same pixels; an old set is not mixed with a new one", async () => {
    const out = join(dir, "frames/");
    const video = await openVideo(out, format);
    await video.write(frame(0));
    await video.write(frame(7));
    await video.finish();
    expect((await readdir(out)).sort()).toEqual(["frame-00000.png", "frame-00001.png"]);
    const png = PNG.sync.read(await readFile(join(out, "frame-00001.png")));
    expect([png.width, png.height, png.alpha]).toEqual([64, 48, false]);
    const rgb = png.data.filter((_, i) => i % 4 !== 3);
    expect(Buffer.from(rgb).equals(frame(7))).toBe(true);
    await expect(openVideo(out, format)).rejects.toThrow(/already has frames \(frame-0000\d.png\)/);
  });
});

test("targets and sizes that cannot be are sentences", async () => {
  await mkdir(join(dir, "folder.mp4"));
  await expect(openVideo(join(dir, "folder.mp4"), format, noFfmpeg)).rejects.toThrow(/folder.mp4: it is a directory/);
  await expect(openVideo(join(dir, "slow.mp4"), { ...format, fps: 0.5 }, noFfmpeg)).rejects.toThrow(/rate from 1/);
  // The WebAssembly encoder would take it for 23.
  await expect(openVideo(join(dir, "film.mp4"), { ...format, fps: 23.976 }, noFfmpeg)).rejects.toThrow(
    /at 23.976 frames per second: .* choose 24, install ffmpeg/,
  );
  await expect(openVideo(join(dir, "video.gif"), format)).rejects.toThrow(/end it in .mp4 .* or in \//);
  await expect(openVideo(join(dir, "no/such/video.mp4"), format, noFfmpeg)).rejects.toThrow(
    /Cannot write .*no such file/,
  );
  await expect(openVideo(join(dir, "full/frames/"), format)).rejects.toThrow(/Cannot write frames into/);
  await expect(openVideo(join(dir, "odd.mp4"), { ...format, width: 63 })).rejects.toThrow(/63×48 .* even/);
  const video = await openVideo(join(dir, "short.mp4"), format, noFfmpeg);
  await expect(video.write(new Uint8Array(5))).rejects.toThrow(/has 9216 bytes, but 5 were given/);
  await video.abort();
});
