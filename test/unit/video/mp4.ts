import { readFile } from "node:fs/promises";
import { expect } from "vitest";

interface Box {
  readonly type: string;
  readonly body: Buffer;
}

/** The boxes of one level of an MP4 file. */
function boxes(bytes: Buffer): Box[] {
  const found: Box[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const size = bytes.readUInt32BE(at);
    expect(size).toBeGreaterThanOrEqual(8);
    expect(at + size).toBeLessThanOrEqual(bytes.byteLength);
    found.push({ type: bytes.toString("latin1", at + 4, at + 8), body: bytes.subarray(at + 8, at + size) });
    at += size;
  }
  return found;
}

function child(bytes: Buffer, ...path: string[]): Buffer {
  return path.reduce((body, type) => {
    const box = boxes(body).find((b) => b.type === type);
    if (box === undefined) return expect.fail(`no ${type} among ${boxes(body).map((b) => b.type)}`);
    return box.body;
  }, bytes);
}

/** The file is an MP4 with one H.264 track of this size, length and rate. */
export async function expectMp4(
  path: string,
  { width, height, fps, frames }: { width: number; height: number; fps: number; frames: number },
) {
  const file = await readFile(path);
  expect(boxes(file)[0]?.type).toBe("ftyp");
  expect(boxes(file).map((box) => box.type)).toEqual(expect.arrayContaining(["mdat", "moov"]));
  const video = boxes(child(file, "moov"))
    .filter((box) => box.type === "trak")
    .map((box) => box.body);
  expect(video.length).toBe(1);
  const track = video[0] ?? Buffer.alloc(0);
  const table = child(track, "mdia", "minf", "stbl");
  // Sample sizes: version and flags, common size, count.
  expect(child(table, "stsz").readUInt32BE(8)).toBe(frames);
  const entry = boxes(child(table, "stsd").subarray(8))[0];
  expect(entry?.type).toBe("avc1");
  expect([entry?.body.readUInt16BE(24), entry?.body.readUInt16BE(26)]).toEqual([width, height]);
  const header = child(track, "mdia", "mdhd");
  const seconds = header.readUInt32BE(16) / header.readUInt32BE(12);
  expect(seconds).toBeCloseTo(frames / fps, 1);
}
