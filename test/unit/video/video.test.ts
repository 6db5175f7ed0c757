import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PNG } from "pngjs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { colourOf } from "../../../src/video/colour.js";
import { keepFrames } from "../../../src/video/keeping-writer.js";
import { freeName, openVideo } from "../../../src/video/open-video.js";
import { testWithFfmpeg } from "./ffmpeg.js";
import { expectMp4 } from "./mp4.js";

const format = { width: 64, height: 48, fps: 16 };
const noFfmpeg = "ditrun-test-there-is-no-such-program";

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

/** A stand-in for ffmpeg: its first run, the trial, does as it should, later ones do `body`, both with the last argument as $out. */
async function fakeFfmpeg(name: string, body: string, trial = 'cat > "$out"'): Promise<string> {
  const path = join(dir, name);
  const program = `for out; do :; done\nout="\${out#file:}"\nif [ ! -e "$0.tried" ]; then touch "$0.tried"; ${trial}; exit; fi\n${body}\n`;
  await writeFile(path, `#!/bin/sh\n${program}`);
  await chmod(path, 0o755);
  return path;
}

const temporaries = async () => (await readdir(dir)).filter((name) => name.endsWith(".tmp"));

test("the matrix is BT.601's up to 576 lines, and BT.709's above", () => {
  const matrix = (width: number, height: number) => colourOf({ width, height }).ffmpegMatrix;
  expect([matrix(720, 576), matrix(1264, 576)]).toEqual(["smpte170m", "smpte170m"]);
  expect([matrix(720, 592), matrix(1280, 480)]).toEqual(["bt709", "bt709"]);
});

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

  testWithFfmpeg("ffmpeg's file has all frames, the size and the rate", async () => {
    const out = join(dir, "ffmpeg.mp4");
    const video = await openVideo(out, format);
    expect(video.encoder).toBe("ffmpeg (libx264)");
    for (let i = 0; i < 9; i++) await video.write(frame(i));
    await video.finish();
    await expectMp4(out, { ...format, frames: 9 });
    expect(await temporaries()).toEqual([]);
  });

  testWithFfmpeg("ffmpeg writes to the very name, whatever it looks like", async () => {
    const folder = join(dir, "names");
    await mkdir(folder);
    const before = process.cwd();
    process.chdir(folder);
    try {
      const names = ["file:x.mp4", "take:2.mp4", "-y.mp4"];
      for (const out of names) {
        const video = await openVideo(out, format);
        expect(video.encoder).toBe("ffmpeg (libx264)");
        await video.write(frame(0));
        await video.finish();
      }
      expect((await readdir(folder)).sort()).toEqual(names.sort());
    } finally {
      process.chdir(before);
    }
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

  test("an ffmpeg that cannot write there is known before the first frame, and said", async () => {
    const trials = [
      [
        "exit 13",
        'echo "first" >&2; echo "x.mp4: Permission denied" >&2; exit 13',
        "exited with code 13, saying “x.mp4: Permission denied”",
      ],
      ["killed", "kill -SEGV $$", "was ended by SIGSEGV"],
      ["silent", "cat > /dev/null", "it writes nothing"],
    ] as const;
    for (const [name, trial, why] of trials) {
      const said: string[] = [];
      const warn = (sentence: string) => said.push(sentence);
      const out = join(dir, `${name}.mp4`);
      const video = await openVideo(out, format, await fakeFfmpeg(name, "exit 70", trial), { warn });
      expect(said).toEqual([`ffmpeg cannot write ${out}: ${why}. The WebAssembly encoder writes the video instead.`]);
      expect(video.encoder).toBe("WebAssembly H.264");
      await video.write(frame(0));
      await video.finish();
      await expectMp4(out, { ...format, frames: 1 });
    }
    expect(await temporaries()).toEqual([]);
  });

  test("an ffmpeg that fails later does not cost a frame: the other encoder gets them all", async () => {
    const full = 'head -c 30000 > /dev/null; echo "av_write: No space left on device" >&2; exit 28';
    const failures = [
      [
        "writing",
        full,
        9,
        /ffmpeg exited with code 28, saying “av_write: No space left on device”\. The frames are kept: the Web/,
      ],
      [
        "ending",
        "cat > /dev/null; kill -SEGV $$",
        2,
        /ffmpeg was ended by SIGSEGV\. The frames are kept: the WebAssembly enc/,
      ],
    ] as const;
    for (const [name, body, frames, message] of failures) {
      const said: string[] = [];
      const out = join(dir, `${name}.mp4`);
      const warn = (sentence: string) => said.push(sentence);
      const video = await openVideo(out, format, await fakeFfmpeg(name, body), { warn });
      expect(video.encoder).toBe("ffmpeg (libx264)");
      for (let i = 0; i < frames; i++) await video.write(frame(i));
      expect(await video.finish()).toBe(out);
      expect(said).toEqual([expect.stringMatching(message)]);
      expect(video.encoder).toBe("WebAssembly H.264");
      await expectMp4(out, { ...format, frames });
    }
    expect(await temporaries()).toEqual([]);
  });

  test("frames go into PNG files where no encoder can take them", async () => {
    const out = join(dir, "rate.mp4");
    const said: string[] = [];
    const ffmpeg = await fakeFfmpeg("rate", "cat > /dev/null; exit 1");
    // Wider than the WebAssembly encoder takes.
    const wide = { width: 65_536, height: 2, fps: 16 };
    const video = await openVideo(out, wide, ffmpeg, { warn: (sentence) => said.push(sentence) });
    for (let i = 0; i < 3; i++) await video.write(new Uint8Array(3 * 65_536 * 2));
    expect(await video.finish()).toBe(join(dir, "rate-frames/"));
    expect((await readdir(join(dir, "rate-frames"))).length).toBe(3);
    expect(said.length).toBe(3);
    expect(said.at(-1)).toContain("they go into");
  });

  test("with no way out left, the first failure is what is said; so it is beyond what is kept", async () => {
    const failing = (words: string) => ({
      ...{ encoder: words, write: async () => {}, abort: async () => {} },
      finish: async () => {
        throw new Error(`${words} failed.`);
      },
    });
    const ways = [{ what: "b is next", open: async () => failing("b") }];
    const said: string[] = [];
    const warn = (sentence: string) => void said.push(sentence);
    const video = keepFrames(failing("a"), ways, warn);
    await video.write(frame(0));
    await expect(video.finish()).rejects.toThrow("a failed.");
    expect(said).toEqual(["a failed. The frames are kept: b is next."]);
    const long = keepFrames(failing("a"), ways, warn, 100);
    await long.write(frame(0));
    await expect(long.finish()).rejects.toThrow("a failed.");
    expect(said.length).toBe(1);
  });

  test("an encoder that is ended while it finishes is no fault to mend", async () => {
    let end = (_error: Error) => {};
    const ended = new Promise<string>((_resolve, reject) => {
      end = reject;
    });
    const first = {
      ...{ encoder: "a", write: async () => {}, finish: () => ended },
      abort: async () => end(new Error("a was ended.")),
    };
    let opened = 0;
    const open = async () => {
      opened++;
      return { ...first, finish: async () => "b" };
    };
    const video = keepFrames(first, [{ what: "b is next", open }], () => {});
    const finishing = expect(video.finish()).rejects.toThrow("a was ended.");
    await video.abort();
    await finishing;
    expect(opened).toBe(0);
  });

  test("a frame is taken when the encoder has room for it, not before", async () => {
    const slow = await fakeFfmpeg("waiting", 'while [ ! -e "$0.go" ]; do sleep 0.05; done; cat > "$out"');
    const video = await openVideo(join(dir, "waiting.mp4"), format, slow);
    let taken = 0;
    const writing = (async () => {
      // Ten times what fits into a pipe.
      for (; taken < 70; taken++) await video.write(frame(taken % 12));
    })();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(taken).toBeLessThan(35);
    await writeFile(`${slow}.go`, "");
    await writing;
    await video.finish();
    expect((await readFile(join(dir, "waiting.mp4"))).length).toBe(70 * frame(0).length);
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

describe("a name that is taken", () => {
  test("gets the next free number, at the end, whatever has come meanwhile", async () => {
    const out = join(dir, "taken.mp4");
    await writeFile(out, "the first");
    expect(await freeName({ out, overwrite: false })).toBe(join(dir, "taken-2.mp4"));
    const writers = [];
    for (const ffmpeg of [noFfmpeg, noFfmpeg, await fakeFfmpeg("taken", 'cat > "$out"')]) {
      const video = await openVideo(out, format, ffmpeg, { overwrite: false });
      await video.write(frame(0));
      writers.push(video);
    }
    const names = await Promise.all(writers.map((video) => video.finish()));
    expect(names.sort()).toEqual([2, 3, 4].map((number) => join(dir, `taken-${number}.mp4`)));
    expect(await readFile(out, "utf8")).toBe("the first");
    for (const name of names) expect((await readFile(name)).length).toBeGreaterThan(500);
    expect(await temporaries()).toEqual([]);
  });

  test("is replaced if that is asked for, and not before the new video is whole", async () => {
    const out = join(dir, "replaced.mp4");
    await writeFile(out, "the first");
    expect(await freeName({ out, overwrite: true })).toBe(out);
    const video = await openVideo(out, format, noFfmpeg, { overwrite: true });
    await video.write(frame(0));
    expect(await readFile(out, "utf8")).toBe("the first");
    expect(await video.finish()).toBe(out);
    await expectMp4(out, { ...format, frames: 1 });
  });
});

describe("frames", () => {
  test("two runs that find a folder empty do not share it; one that gives up leaves it empty", async () => {
    const out = join(dir, "shared/");
    const kept = { overwrite: false };
    const writers = await Promise.all([openVideo(out, format, "", kept), openVideo(out, format, "", kept)]);
    const [first, second] = writers;
    await first?.write(frame(1));
    await second?.write(frame(2));
    const folders = [await first?.finish(), await second?.finish()];
    expect(folders.sort()).toEqual([join(dir, "shared-2/"), out]);
    for (const folder of folders) expect(await readdir(folder ?? "")).toEqual(["frame-00000.png"]);
    const third = await openVideo(out, format, "", kept);
    await third.abort();
    expect(await readdir(join(dir, "shared-3"))).toEqual([]);
  });

  test("are PNG files with the same pixels; an old set is not mixed with a new one", async () => {
    const out = join(dir, "frames/");
    const video = await openVideo(out, format, "", { overwrite: false });
    await video.write(frame(0));
    await video.write(frame(7));
    await video.finish();
    expect((await readdir(out)).sort()).toEqual(["frame-00000.png", "frame-00001.png"]);
    const png = PNG.sync.read(await readFile(join(out, "frame-00001.png")));
    expect([png.width, png.height, png.alpha]).toEqual([64, 48, false]);
    const rgb = png.data.filter((_, i) => i % 4 !== 3);
    expect(Buffer.from(rgb).equals(frame(7))).toBe(true);
    const shorter = await openVideo(out, format, "", { overwrite: true });
    await shorter.write(frame(3));
    await shorter.finish();
    expect(await readdir(out)).toEqual(["frame-00000.png"]);
  });
});

test("targets and sizes that cannot be are sentences", async () => {
  await mkdir(join(dir, "folder.mp4"));
  await expect(openVideo(join(dir, "folder.mp4"), format, noFfmpeg)).rejects.toThrow(/folder.mp4: it is a directory/);
  await expect(openVideo(join(dir, "slow.mp4"), { ...format, fps: 0.5 }, noFfmpeg)).rejects.toThrow(/rate from 1/);
  await expect(openVideo(join(dir, "wide.mp4"), { ...format, width: 65_536 }, noFfmpeg)).rejects.toThrow(
    /65536×48 pixels: .* takes 65535 at most; write PNG frames/,
  );
  await expect(openVideo(join(dir, "video.gif"), format)).rejects.toThrow(/end it in .mp4 .* or in \//);
  await expect(openVideo(join(dir, "no/such/video.mp4"), format, noFfmpeg)).rejects.toThrow(
    /Cannot write .*there is no folder/,
  );
  await expect(openVideo(join(dir, "copy/frames/"), format)).rejects.toThrow(/Cannot write frames into/);
  await expect(openVideo(join(dir, "odd.mp4"), { ...format, width: 63 })).rejects.toThrow(/63×48 .* even/);
  const video = await openVideo(join(dir, "short.mp4"), format, noFfmpeg);
  await expect(video.write(new Uint8Array(5))).rejects.toThrow(/has 9216 bytes, but 5 were given/);
  await video.abort();
});
