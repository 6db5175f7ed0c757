import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { join } from "node:path";
import { build } from "esbuild";
import { afterEach, expect, expectTypeOf, test } from "vitest";
import type { z } from "zod";
import { createClient } from "../../../src/client/client.js";
import { readEvents } from "../../../src/client/event-stream.js";
import { ServerError } from "../../../src/client/server-error.js";
import type { CreateVideo, Video, VideoEvent, VideoProgress } from "../../../src/client/types.js";
import { packageRoot } from "../../../src/paths.js";
import type { createSchema, ProgressEvent, Video as ServedVideo } from "../../../src/serve/schemas.js";

type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void;

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});

/** A server that gives these answers, one after the other, and the last one again. @returns also what it was asked. */
async function stub(...answers: Answer[]) {
  const asked: { line: string; headers: IncomingMessage["headers"]; body: string; at: number }[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => {
      body += chunk.toString();
    });
    request.once("end", () => {
      const answer = answers[Math.min(asked.length, answers.length - 1)];
      const line = `${request.method} ${request.url}`;
      asked.push({ line, headers: request.headers, body, at: performance.now() });
      answer?.(request, response, body);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("It does not listen.");
  const url = `http://127.0.0.1:${address.port}`;
  return { url, asked, client: createClient({ url, apiKey: "a-key" }) };
}

const video = (more: Partial<Video> = {}): Video => ({
  ...{ object: "video", id: "video_1", model: "tiny", status: "queued", error: null, progress: 0 },
  ...{ created_at: 1, completed_at: null, expires_at: null, prompt: "x", negative_prompt: null, size: "96x96" },
  ...{
    seconds: "1.063",
    num_frames: 17,
    fps: 16,
    num_inference_steps: null,
    guidance_scale: null,
    guidance_scale_2: null,
    flow_shift: null,
  },
  ...{ seed: 1, queue_position: 1, inference_time_s: null, peak_memory_mb: null, stage_durations: null },
  ...more,
});
const json =
  (body: object, status = 200, headers: Record<string, string> = {}): Answer =>
  (_request, response) =>
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
const refusal = (status: number, code: string, headers: Record<string, string> = {}) =>
  json({ error: { message: "It is so.", type: "t", param: "size", code } }, status, headers);
const cut: Answer = (request) => request.socket.destroy();
const event = (name: string, data: object) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
const events =
  (...texts: string[]): Answer =>
  (_request, response) =>
    response.writeHead(200, { "content-type": "text/event-stream" }).end(texts.join(""));

test("what the client says of the server's answers and fields is what the server has", () => {
  expectTypeOf<ServedVideo>().toExtend<Video>();
  expectTypeOf<ProgressEvent>().toEqualTypeOf<{ -readonly [Name in keyof VideoProgress]: VideoProgress[Name] }>();
  expectTypeOf<keyof CreateVideo>().toEqualTypeOf<keyof z.input<typeof createSchema>>();
});

test("it is one for browsers, too", async () => {
  const entryPoints = [join(packageRoot, "src/client/client.ts")];
  const { metafile } = await build({ entryPoints, bundle: true, write: false, platform: "browser", metafile: true });
  expect(Object.keys(metafile.inputs).filter((file) => !/src\/(?:client\/|failure)/.test(file))).toEqual([]);
});

test("a busy server and a broken connection are tried again, as one request under one key", async () => {
  const busy = refusal(429, "queue_full", { "retry-after-ms": "20" });
  const { client, asked } = await stub(busy, cut, json(video()));
  expect(await client.videos.create({ prompt: "a", num_frames: 5 })).toMatchObject({ id: "video_1" });
  expect(asked.map(({ line }) => line)).toEqual(Array(3).fill("POST /v1/videos"));
  const keys = new Set(asked.map(({ headers }) => headers["idempotency-key"]));
  expect([...keys]).toEqual([expect.stringMatching(/^[0-9a-f]{32}$/)]);
  expect(asked[2]?.body).toBe('{"prompt":"a","num_frames":5}');
  expect(asked[0]?.headers.authorization).toBe("Bearer a-key");
  expect((asked[1]?.at ?? 0) - (asked[0]?.at ?? 0)).toBeGreaterThan(15);
});

test("what the server refuses is not tried again, and says why", async () => {
  const { client, asked } = await stub(
    refusal(409, "video_failed", { "x-should-retry": "false", "x-request-id": "r" }),
  );
  const error: unknown = await client.videos.cancel("video_1").catch((thrown: unknown) => thrown);
  expect(asked).toHaveLength(1);
  expect(error).toBeInstanceOf(ServerError);
  expect(error).toMatchObject({
    ...{ name: "DitrunError", code: "ERR_SERVER_REFUSED", exitCode: 2, status: 409 },
    ...{ serverCode: "video_failed", param: "size", requestId: "r" },
    message: "The server refuses to cancel video_1: It is so.",
  });
});

test.each<[string, Answer, string]>([
  ["a full queue", refusal(429, "queue_full", { "retry-after": "0" }), "ERR_SERVER_BUSY"],
  ["a page of another server", (_, response) => response.writeHead(502).end("<html>"), "ERR_SERVER_BUSY"],
  ["other JSON", json({ hello: 1 }), "ERR_SERVER_ANSWER"],
  ["no JSON", (_, response) => response.end("hello"), "ERR_SERVER_ANSWER"],
  ["no answer", cut, "ERR_SERVER_UNREACHABLE"],
  ["no server", () => undefined, "ERR_SERVER_UNREACHABLE"],
])("%s", async (what, answer, code) => {
  const { url } = await stub(answer);
  const none = what === "no server";
  const client = createClient({ url: none ? "http://127.0.0.1:1" : url, maxRetries: 1 });
  await expect(client.videos.retrieve("video_1")).rejects.toMatchObject({ name: "DitrunError", code });
});

test("a server that never answers, a url that is none, a call that is called off", async () => {
  const { url, client } = await stub(() => undefined);
  const impatient = createClient({ url, timeoutMs: 50, maxRetries: 0 });
  await expect(impatient.videos.retrieve("a")).rejects.toMatchObject({ message: expect.stringContaining("0.05 s") });
  expect(() => createClient({ url: "localhost:8000" })).toThrow("http");
  const reason = new Error("enough");
  await expect(client.videos.retrieve("a", { signal: AbortSignal.timeout(20) })).rejects.toMatchObject({
    name: "TimeoutError",
  });
  await expect(client.videos.retrieve("a", { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});

test("the list goes on over its pages", async () => {
  const page = (ids: string[], more: boolean) =>
    json({ object: "list", data: ids.map((id) => video({ id })), has_more: more });
  const { client, asked } = await stub(page(["a", "b"], true), page(["c"], false));
  const ids: string[] = [];
  for await (const { id } of client.videos.list({ limit: 2, order: "asc" })) ids.push(id);
  expect(ids).toEqual(["a", "b", "c"]);
  expect(asked.map(({ line }) => line)).toEqual([
    "GET /v1/videos?limit=2&order=asc",
    "GET /v1/videos?limit=2&order=asc&after=b",
  ]);
});

const progress = { stage: "sample", step: 1, steps: 2, progress: 46, eta_s: 1 };

test("events go on where a connection breaks off, up to the video's end", async () => {
  const broken: Answer = (request, response) => {
    response.writeHead(200).write(`: still here\n\n${event("status", video())}event: sta`);
    setTimeout(() => request.socket.destroy(), 20);
  };
  const completed = event("status", video({ status: "completed" }));
  const { client } = await stub(
    broken,
    refusal(503, "x"),
    events(event("progress", progress), event("new", {}), completed),
  );
  const told: VideoEvent[] = [];
  for await (const each of client.videos.events("video_1")) told.push(each);
  expect(told).toEqual([
    { kind: "status", video: video() },
    { kind: "progress", progress },
    { kind: "status", video: video({ status: "completed" }) },
  ]);
});

test("events end with what cannot pass, and where patience ends", async () => {
  const follow = async (...answers: Answer[]) => {
    const { client } = await stub(...answers);
    for await (const _ of client.videos.events("video_1", { patienceMs: 300 }));
  };
  await expect(follow(refusal(404, "video_not_found"))).rejects.toMatchObject({ code: "ERR_SERVER_REFUSED" });
  await expect(follow(events(event("status", {})))).rejects.toMatchObject({ code: "ERR_SERVER_ANSWER" });
  await expect(follow(cut)).rejects.toMatchObject({ code: "ERR_SERVER_UNREACHABLE" });
  await expect(follow(events("event: progress\ndata: {\n\n"))).rejects.toMatchObject({
    code: "ERR_SERVER_ANSWER",
  });
});

test("a stream is read whatever its pieces are", async () => {
  const bytes = new TextEncoder().encode(
    ': a\r\n\r\nevent: é\r\ndata: 1\r\ndata: 2\r\n\r\ndata: {"a": ":"}\n\nevent: half',
  );
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  const read = [];
  for await (const each of readEvents(body)) read.push(each);
  expect(read).toEqual([
    { name: "é", data: "1\n2" },
    { name: "message", data: '{"a": ":"}' },
  ]);
});

test("generate asks, waits and gets the file; a failed video is a failure", async () => {
  const completed = events(event("progress", progress), event("status", video({ status: "completed" })));
  const { client, asked } = await stub(json(video()), completed, (_, response) => response.end("mp4"));
  const told: string[] = [];
  const made = await client.videos.generate({ prompt: "a" }, { onEvent: ({ kind }) => told.push(kind) });
  expect([made.video.status, await made.content.text(), told]).toEqual(["completed", "mp4", ["progress", "status"]]);
  expect(asked.map(({ line }) => line.slice(-15))).toEqual(
    [" /v1/videos", "video_1/events", "ideo_1/content"].map((end) => expect.stringContaining(end)),
  );

  const error = { code: "not_finite", message: "Step 3 is not finite." };
  const failing = await stub(json(video()), events(event("status", video({ status: "failed", error }))));
  await expect(failing.client.videos.generate({ prompt: "a" })).rejects.toMatchObject({
    ...{ code: "ERR_VIDEO_FAILED", exitCode: 5, message: "video_1 has failed (not_finite): Step 3 is not finite." },
  });
});

test("generate that is called off cancels its video, also while it is being accepted", async () => {
  const abort = new AbortController();
  const cancelled = json(video({ status: "failed" }));
  const open: Answer = (_request, response) => {
    response.writeHead(200).write(event("status", video()));
  };
  const waiting = await stub(json(video()), open, cancelled);
  const reason = new Error("enough");
  const onEvent = () => abort.abort(reason);
  const run = { signal: abort.signal, onEvent };
  await expect(waiting.client.videos.generate({ prompt: "a" }, run)).rejects.toBe(reason);
  expect(waiting.asked.at(-1)?.line).toBe("POST /v1/videos/video_1/cancel");

  const early = new AbortController();
  const accepting: Answer = (request, response, body) => {
    early.abort(reason);
    setTimeout(() => json(video())(request, response, body), 20);
  };
  const { client, asked } = await stub(accepting, cancelled);
  await expect(client.videos.generate({ prompt: "a" }, { signal: early.signal })).rejects.toBe(reason);
  expect(asked.map(({ line }) => line)).toEqual(["POST /v1/videos", "POST /v1/videos/video_1/cancel"]);
});

test("another server, to which it is sent, gets nothing", async () => {
  const other = await stub(json({}));
  const { client } = await stub((_request, response) => response.writeHead(307, { location: `${other.url}/v1` }).end());
  const said = { code: "ERR_SERVER_ANSWER", message: expect.stringContaining(`sends to ${other.url}/v1, which`) };
  await expect(client.videos.create({ prompt: "secret" })).rejects.toMatchObject(said);
  await expect(client.videos.content("video_1")).rejects.toMatchObject(said);
  expect(other.asked).toEqual([]);
});

test.each(["http://user:secret@a", "http://a/?key=secret", "http://a/#secret"])("%s is no url of a server", (url) => {
  expect(() => createClient({ url })).toThrow(expect.objectContaining({ code: "ERR_OPTION_VALUE" }));
  expect(() => createClient({ url })).not.toThrow("secret");
});

const steers = "\u001b]0;x\u0007";
test.each([
  ["an id that steers a terminal", { id: steers }],
  ["a size that does", { size: steers }],
  ["a seed that does", { seed: steers }],
  ["a time that is text", { inference_time_s: "1" }],
  ["no prompt", { prompt: undefined }],
  ["an error without code", { status: "failed", error: {} }],
])("a video with %s is none", async (_what, more) => {
  const strange = { ...video(), ...more };
  const { client } = await stub(json(strange), json({ data: [strange] }));
  await expect(client.videos.retrieve("video_1")).rejects.toMatchObject({ code: "ERR_SERVER_ANSWER" });
  await expect(client.videos.list().next()).rejects.toMatchObject({ code: "ERR_SERVER_ANSWER" });
});

test("a list whose pages do not go on ends", async () => {
  const { client } = await stub(json({ data: [video()], has_more: true }));
  const all = async () => {
    for await (const _ of client.videos.list());
  };
  await expect(all()).rejects.toMatchObject({ code: "ERR_SERVER_ANSWER" });
});

const endless =
  (status: number, type: string): Answer =>
  (_request, response) => {
    response.writeHead(status, { "content-type": type });
    const more = () => {
      while (response.write("x".repeat(2 ** 20)));
    };
    response.on("drain", more);
    more();
  };

test("answers, refusals and events without end do end", async () => {
  const { client } = await stub(
    endless(200, "application/json"),
    endless(400, "application/json"),
    endless(200, "a/b"),
  );
  await expect(client.videos.retrieve("video_1")).rejects.toMatchObject({
    message: expect.stringContaining("its answer has more than 67108864 bytes"),
  });
  await expect(client.videos.retrieve("video_1")).rejects.toMatchObject({ code: "ERR_SERVER_REFUSED" });
  await expect(client.videos.events("video_1").next()).rejects.toMatchObject({ code: "ERR_SERVER_ANSWER" });
});

test("an answer that comes a byte at a time ends, too; so do events that are no JSON, and long reasons", async () => {
  const { url } = await stub((_request, response) => {
    const timer = setInterval(() => response.write(" "), 20);
    response.on("close", () => clearInterval(timer));
  });
  const client = createClient({ url, timeoutMs: 300 });
  await expect(client.videos.retrieve("video_1")).rejects.toMatchObject({
    message: expect.stringContaining("its answer did not end within 0.3 s"),
  });
  const bad = await stub(events("event: status\ndata: {bad\n\n"), json({ error: { message: "x".repeat(9999) } }, 400));
  await expect(bad.client.videos.events("video_1").next()).rejects.toMatchObject({ code: "ERR_SERVER_ANSWER" });
  await expect(bad.client.videos.retrieve("video_1")).rejects.toMatchObject({
    message: expect.stringMatching(/^The server refuses to tell of video_1: x{1000}$/),
  });
});
