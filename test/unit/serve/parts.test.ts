import { describe, expect, test } from "vitest";
import { doorFor, isLoopback } from "../../../src/serve/auth.js";
import { withoutFolders } from "../../../src/serve/outcomes.js";
import { Queue } from "../../../src/serve/queue.js";
import { parseRange } from "../../../src/serve/ranges.js";
import { Ids } from "../../../src/serve/records.js";
import { createSchema } from "../../../src/serve/schemas.js";
import { digestOf, type Offer, settingsOf } from "../../../src/serve/settings.js";

test.each([
  [undefined, "all"],
  ["bytes=0-0", { start: 0, end: 0 }],
  ["bytes=0-", { start: 0, end: 99 }],
  ["bytes=90-200", { start: 90, end: 99 }],
  ["bytes=-10", { start: 90, end: 99 }],
  ["bytes=-200", { start: 0, end: 99 }],
  ["bytes=100-", "none"],
  ["bytes=-0", "none"],
  ["bytes=5-4", "all"],
  ["bytes=-", "all"],
  ["bytes=0-1,4-5", "all"],
  ["lines=0-1", "all"],
  ["bytes=a-b", "all"],
])("Range: %s", (header, range) => {
  expect(parseRange(header, 100)).toEqual(range);
});

describe("the queue", () => {
  const never = new AbortController().signal;

  test("counts a request from its first byte on, and gives back the place of one that fails", async () => {
    const queue = new Queue(2);
    const [first, second] = [queue.reserve(), queue.reserve()];
    expect(queue.reserve()).toBeUndefined();
    first?.release();
    first?.release();
    const third = queue.reserve();
    expect(queue.reserve()).toBeUndefined();
    second?.enter("a");
    second?.release();
    third?.enter("b");
    expect(queue.reserve()).toBeUndefined();
    expect([queue.positionOf("a"), queue.positionOf("b"), queue.positionOf("c")]).toEqual([1, 2, undefined]);
    expect(await queue.take(never)).toBe("a");
    expect(queue.reserve()).toBeDefined();
  });

  test("is first come first served, but for what was begun before; each is taken once", async () => {
    const queue = new Queue(9);
    const taken = [queue.take(never), queue.take(never), queue.take(never), queue.take(never)];
    queue.add("a");
    queue.add("b");
    queue.add("c");
    queue.add("d", true);
    expect((await Promise.all(taken)).toSorted()).toEqual(["a", "b", "c", "d"]);
    queue.add("e");
    queue.add("f", true);
    expect(await queue.take(never)).toBe("f");
    expect(queue.remove("e")).toBe(true);
    expect(queue.remove("e")).toBe(false);
  });

  test("who stops waiting loses no video for the others", async () => {
    const queue = new Queue(9);
    const stop = new AbortController();
    const [stopped, other] = [queue.take(stop.signal), queue.take(never)];
    queue.add("a");
    stop.abort();
    expect(await stopped).toBeUndefined();
    expect(await other).toBe("a");
  });
});

test("the key is asked for, whole and alone", () => {
  const key = "0123456789abcdef";
  const headers = [undefined, "", key, `Basic ${key}`, "Bearer ", `Bearer ${key}0`, `Bearer ${key.slice(1)}`];
  expect(headers.filter(doorFor(key))).toEqual([]);
  expect([`Bearer ${key}`, `bearer  ${key}`].filter((header) => !doorFor(key)(header))).toEqual([]);
  expect(doorFor(undefined)(undefined)).toBe(true);
  expect(["127.0.0.1", "127.8.8.8", "localhost", "::1"].filter((host) => !isLoopback(host))).toEqual([]);
  expect(["0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example", "localhost.example"].filter(isLoopback)).toEqual([]);
});

test("ids sort by their creation, also where the clock goes back or a server before was ahead", () => {
  const ids = new Ids();
  const made = [100, 100, 50, 200].map((now) => ids.next(now));
  const later = new Ids(made.at(-1)).next(10);
  expect([...made, later].toSorted()).toEqual([...made, later]);
});

describe("a request", () => {
  const offer: Offer = {
    ...{ model: "tiny", sizes: [{ width: 96, height: 64 }], frames: 9, mostFrames: 81, fps: 16 },
    loras: new Map([["red", "/loras/red.safetensors"]]),
    ...{ steps: 6, guideScale: 5, shift: 5 },
  };
  const settings = (fields: object) => settingsOf(createSchema.parse({ prompt: "A red car", ...fields }), offer);

  test("gets what is usual, and a seed that JSON can hold", () => {
    const { seed, ...usual } = settings({});
    expect(usual).toEqual({
      ...{ prompt: "A red car", width: 96, height: 64, frames: 9, fps: 16, steps: 6, guideScale: 5, shift: 5 },
    });
    expect(Number.isSafeInteger(Number(seed))).toBe(true);
    expect(settings({ seed: "18446744073709551615" }).seed).toBe("18446744073709551615");
  });

  test("names LoRAs of the operator's folder alone, with a strength each", () => {
    expect(settings({ lora: "red" }).loras).toEqual([{ name: "red", strength: 1 }]);
    expect(settings({ lora: [{ name: "red", scale: 0.5 }] }).loras).toEqual([{ name: "red", strength: 0.5 }]);
  });

  test.each([
    ["4", 65],
    ["5", 81],
    ["0.5", 9],
  ])("%s seconds are %i frames", (seconds, frames) => {
    expect(settings({ seconds }).frames).toBe(frames);
  });

  test.each([
    [{ size: "64x96" }, "size"],
    [{ num_frames: 8 }, "num_frames"],
    [{ num_frames: 85 }, "num_frames"],
    [{ seconds: "60" }, "seconds"],
    [{ seconds: "4", num_frames: 9 }, "seconds"],
    [{ model: "sora-2" }, "model"],
    [{ lora: "../red" }, "lora"],
    [{ lora: [{ name: "red" }, { name: "blue" }] }, "lora"],
  ])("%o is refused", (fields, param) => {
    expect(() => settings(fields)).toThrow(expect.objectContaining({ param }));
  });

  test.each([
    { prompt: " " },
    { prompt: "x".repeat(32_001) },
    { seconds: 4 },
    { num_inference_steps: 201 },
    { num_inference_steps: "6" },
    { guidance_scale: -1 },
    { seed: -1 },
    { seed: "18446744073709551616" },
    { output_path: "/etc/passwd" },
    { input_reference: { image_url: "http://169.254.169.254/" } },
    { lora: [] },
    { lora: [{ path: "/x" }] },
    { deadline_seconds: 0 },
  ])("%o is not even read", (fields) => {
    expect(createSchema.safeParse({ prompt: "A red car", ...fields }).success).toBe(false);
  });

  test("has one hash whatever the order of its fields", () => {
    const parse = (fields: object) => digestOf(createSchema.parse(fields));
    expect(parse({ prompt: "a", seed: 1 })).toBe(parse({ seed: 1, prompt: "a" }));
    expect(parse({ prompt: "a", seed: 1 })).not.toBe(parse({ prompt: "a", seed: 2 }));
  });
});

test.each([
  ["Cannot write /srv/data/videos/a.mp4: full.", "Cannot write a.mp4: full."],
  ['"/srv/x/style.safetensors" has no tensors.', '"style.safetensors" has no tensors.'],
  ["Look at http://host/a/b or docs/a.md, and/or ask.", "Look at http://host/a/b or docs/a.md, and/or ask."],
])("clients are told %s without the server's folders", (message, told) => {
  expect(withoutFolders(message)).toBe(told);
});
