import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { PNG } from "pngjs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openVideo } from "../../../src/video/open-video.js";
import type { VideoMetadata } from "../../../src/video/video-writer.js";
import { testWithFfmpeg } from "./ffmpeg.js";

const format = { width: 64, height: 48, fps: 16, frames: 1 };
const noFfmpeg = "ditrun-test-there-is-no-such-program";
const prompt = `Zwei Kätzchen 🐈 "boxen"; $(rm -rf ~) \`x\` a=b\\n \u0000\u0007\n${"猫が戦う。\n".repeat(330)}'end'`;
const metadata: VideoMetadata = {
  title: "-y Zwei Kätzchen 🐈 = \"boxen\"; $HOME 'x'",
  comment: JSON.stringify({ prompt, seed: "18446744073709551615" }),
  software: "ditrun 0.0.0",
};

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-video-"));
});
afterAll(() => rm(dir, { recursive: true }));

async function write(name: string, ffmpeg: string, told: { metadata?: VideoMetadata }): Promise<string> {
  const video = await openVideo(join(dir, name), format, ffmpeg, told);
  await video.write(new Uint8Array(3 * format.width * format.height));
  await video.finish();
  return join(dir, name);
}

async function tagsOf(file: string): Promise<Record<string, string>> {
  const { stdout } = await execa("ffprobe", ["-v", "error", "-show_format", "-of", "json", file]);
  return JSON.parse(stdout).format.tags;
}

testWithFfmpeg("both encoders' files tell the same, whatever is in a prompt", async () => {
  expect(prompt.length).toBeGreaterThan(2000);
  const tags = [];
  for (const ffmpeg of ["ffmpeg", noFfmpeg]) {
    const told = await tagsOf(await write("told.mp4", ffmpeg, { metadata }));
    expect(told).toMatchObject({ title: metadata.title, comment: metadata.comment });
    expect(JSON.parse(told.comment ?? "").prompt).toBe(prompt);
    tags.push(told);
  }
  expect(Object.keys(tags[0] ?? {}).sort()).toEqual(Object.keys(tags[1] ?? {}).sort());
  expect(tags[1]?.encoder).toBe("ditrun 0.0.0");
});

testWithFfmpeg("a file without metadata tells nothing of a prompt", async () => {
  for (const ffmpeg of ["ffmpeg", noFfmpeg]) {
    const told = await tagsOf(await write("silent.mp4", ffmpeg, {}));
    expect(Object.keys(told)).not.toContain("comment");
    expect(Object.keys(told)).not.toContain("title");
  }
});

/** Text chunks of a PNG by keyword. */
function textsOf(png: Buffer): Record<string, string> {
  const texts: [string, string][] = [];
  for (let at = 8; at < png.byteLength; at += 12 + png.readUInt32BE(at)) {
    if (png.toString("latin1", at + 4, at + 8) !== "tEXt") continue;
    const data = png.toString("latin1", at + 8, at + 8 + png.readUInt32BE(at));
    const zero = data.indexOf("\0");
    texts.push([data.slice(0, zero), data.slice(zero + 1)]);
  }
  return Object.fromEntries(texts);
}

test("PNG frames tell it in text chunks, as ASCII", async () => {
  const told = await readFile(join(await write("told/", "", { metadata }), "frame-00000.png"));
  const { Comment = "", Software } = textsOf(told);
  expect(JSON.parse(Comment)).toEqual(JSON.parse(metadata.comment));
  expect(Comment).toMatch(/^[ -~]*$/);
  expect(Software).toBe("ditrun 0.0.0");
  // Reads the checks of all chunks, too.
  expect(PNG.sync.read(told)).toMatchObject({ width: 64, height: 48 });
  const silent = await readFile(join(await write("silent/", "", {}), "frame-00000.png"));
  expect(textsOf(silent)).toEqual({});
});
