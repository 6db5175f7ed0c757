import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { decode } from "jpeg-js";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import {
  errorSchema,
  modelListSchema,
  previewEventSchema,
  videoListSchema,
  videoSchema,
} from "../../../src/serve/schemas.js";
import { type ServeOptions, VideoServer } from "../../../src/serve/server.js";
import { Store } from "../../../src/serve/store.js";
import { FakeEngine } from "./fake-engine.js";

const never = new AbortController().signal;
const key = "a key of this test";
const withKey = { authorization: `Bearer ${key.replaceAll(" ", "-")}` };

let folder = "";
let servers: VideoServer[] = [];
let engines: FakeEngine[] = [];
const said: string[] = [];

// The encoder that comes with the package starts sooner than ffmpeg.
const { PATH } = process.env;
beforeAll(() => {
  process.env.PATH = "";
});
afterAll(() => {
  process.env.PATH = PATH;
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-serve-"));
  said.length = 0;
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.drain(0, never);
  engines = [];
  rmSync(folder, { recursive: true });
});

async function open(more: Partial<ServeOptions> = {}, ready = true): Promise<VideoServer> {
  const say = (sentence: unknown) => void said.push(String(sentence));
  const server = await VideoServer.listen({
    ...{ host: "127.0.0.1", port: 0, key: undefined, folder, capacity: 3, keepMs: 3_600_000, replicas: 1 },
    offer: {
      ...{ model: "tiny", sizes: [{ width: 16, height: 16 }], frames: 1, mostFrames: 9, fps: 16, loras: new Map() },
      ...{ steps: 2, guideScale: 5, shift: 5 },
    },
    openEngine: async () => {
      const engine = new FakeEngine();
      engines.push(engine);
      return engine;
    },
    logger: { debug: say, info: say, warn: say, error: say },
    ...more,
  });
  servers.push(server);
  if (ready) await server.start();
  return server;
}

async function call(server: VideoServer, method: string, path: string, body?: object, headers = {}) {
  const response = await fetch(`${server.address}${path}`, {
    method,
    headers: { ...(body && { "content-type": "application/json" }), ...headers },
    ...(body && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  const json: unknown = response.headers.get("content-type") === "application/json" && text ? JSON.parse(text) : text;
  return { status: response.status, json, headers: response.headers };
}

async function create(server: VideoServer, prompt: string, more: object = {}) {
  const { status, json } = await call(server, "POST", "/v1/videos", { prompt, ...more });
  expect(status).toBe(200);
  return videoSchema.parse(json);
}

const get = async (server: VideoServer, id: string) =>
  videoSchema.parse((await call(server, "GET", `/v1/videos/${id}`)).json);

/** As soon as it is so. */
const reaches = (server: VideoServer, id: string, status: string) =>
  vi.waitFor(
    async () => {
      const video = await get(server, id);
      expect(video.status).toBe(status);
      return video;
    },
    { timeout: 20_000, interval: 20 },
  );

describe("safety", () => {
  const routesSchema = z.object({ paths: z.record(z.string(), z.record(z.string(), z.unknown())) });

  test("without the key no route answers but the page and the two that are open, known or not", async () => {
    const server = await open({ key: withKey.authorization.slice("Bearer ".length) }, false);
    const { json } = await call(server, "GET", "/openapi.json", undefined, withKey);
    const paths = Object.entries(routesSchema.parse(json).paths);
    const routes = paths.flatMap(([path, methods]) => Object.keys(methods).map((method) => [method, path] as const));
    expect(routes.length).toBeGreaterThan(10);
    const open_: string[] = [];
    for (const [method, path] of [...routes, ["get", "/page"], ["get", "/v1/none"], ["put", "/healthz"]] as const) {
      const { status } = await call(server, method.toUpperCase(), path.replace("{id}", "video_1"));
      if (status !== 401) open_.push(`${method} ${path}`);
    }
    expect(open_).toEqual(["get /", "get /healthz", "get /readyz"]);
    const { status } = await call(server, "GET", "/v1/models", undefined, {
      authorization: `${withKey.authorization}x`,
    });
    expect(status).toBe(401);
  });

  test("pages of other sites are refused, and other names of this machine", async () => {
    const server = await open({}, false);
    const status = async (headers: object) => (await call(server, "GET", "/v1/models", undefined, headers)).status;
    expect(await status({ origin: "http://example.org" })).toBe(403);
    expect(await status({ origin: "null" })).toBe(403);
    expect(await status({ origin: server.address })).toBe(200);
    const named = await new Promise((resolve) => {
      const options = { headers: { host: "example.org" } };
      request(`${server.address}/v1/models`, options, ({ statusCode }) => resolve(statusCode)).end();
    });
    expect(named).toBe(403);
  });

  test("errors have OpenAI's shape and an id of the request", async () => {
    const server = await open({}, false);
    const long = { prompt: "a", negative_prompt: "x".repeat(2 ** 20) };
    const calls = [
      await call(server, "GET", "/v1/videos/video_1"),
      await call(server, "GET", "/v1/videos?limit=101"),
      await call(server, "GET", "/v1/videos?after=../x"),
      await call(server, "PUT", "/v1/videos"),
      await call(server, "POST", "/v1/videos", { prompt: "a", size: "1x1" }),
      await call(server, "POST", "/v1/videos", { prompt: "a", output_path: "/x" }),
      await call(server, "POST", "/v1/videos", long),
      await call(server, "POST", "/v1/videos", undefined),
    ];
    expect(calls.map(({ status }) => status)).toEqual([404, 400, 400, 405, 400, 400, 413, 415]);
    const errors = calls.map(({ json }) => errorSchema.parse(json).error);
    expect(errors.map(({ param }) => param)).toEqual(["id", "limit", "after", null, "size", "output_path", null, null]);
    expect(calls.every(({ headers }) => /^req_/.test(headers.get("x-request-id") ?? ""))).toBe(true);
  });
});

describe("what comes of a video", () => {
  test("it is made, and its record and file go together", async () => {
    const server = await open({ keepMs: 400 });
    const { id } = await create(server, "a", { seed: 7 });
    const video = await reaches(server, id, "completed");
    expect(video).toMatchObject({ progress: 100, seed: 7, url: `/v1/videos/${id}/content`, peak_memory_mb: 5 });
    expect(readdirSync(join(folder, "videos")).sort()).toEqual(
      [".mp4", ".spritesheet.jpg", ".thumbnail.jpg"].map((ending) => `${id}${ending}`),
    );
    await vi.waitFor(async () => expect((await call(server, "GET", `/v1/videos/${id}`)).status).toBe(410), {
      timeout: 10_000,
    });
    await vi.waitFor(() => expect(readdirSync(join(folder, "videos"))).toEqual([]));
    expect(said.join("\n")).not.toContain("prompt");
  });

  test("one that cannot be made fails alone; one that crashes the workers runs twice, and names the rank", async () => {
    const server = await open();
    const bad = await create(server, "fail");
    expect((await reaches(server, bad.id, "failed")).error?.code).toBe("not_finite");
    expect(engines).toHaveLength(1);
    const crash = await create(server, "crash");
    const after = await create(server, "after");
    const { error } = await reaches(server, crash.id, "failed");
    expect(error).toEqual({ code: "worker_failed", message: expect.stringContaining("Rank 1 was ended by SIGKILL.") });
    await reaches(server, after.id, "completed");
    expect(engines.map(({ prompts }) => prompts.filter((prompt) => prompt !== "-"))).toEqual([
      ["fail", "crash"],
      ["crash"],
      ["after"],
    ]);
  });

  test("workers that die between requests are started again, and it is not ready meanwhile", async () => {
    const server = await open();
    engines[0]?.crash();
    await vi.waitFor(() => expect(engines).toHaveLength(2));
    const { id } = await create(server, "a");
    await reaches(server, id, "completed");
    expect((await call(server, "GET", "/metrics")).json).toContain(
      'ditrun_worker_restarts_total{cause="ERR_RANK_SIGNAL"} 1',
    );
  });

  test("a full queue refuses before it reads, and says when to come back; half an upload gives its place back", async () => {
    const server = await open({ capacity: 2 });
    const { id } = await create(server, "slow");
    await reaches(server, id, "in_progress");
    const first = await create(server, "a");
    const { hostname, port } = new URL(server.address);
    const half = connect(Number(port), hostname);
    half.write(
      "POST /v1/videos HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
    );
    const full = await vi.waitFor(async () => {
      const answer = await call(server, "POST", "/v1/videos", { prompt: 1 });
      expect(answer.status).toBe(429);
      return answer;
    });
    expect(Number(full.headers.get("retry-after"))).toBeGreaterThan(0);
    half.destroy();
    const second = await vi.waitFor(() => create(server, "b"));
    expect([first.queue_position, second.queue_position]).toEqual([1, 2]);
    expect((await call(server, "GET", "/metrics")).json).toContain('rejected_total{reason="queue_full"}');
  });

  test("cancel ends one that waits and one that runs; what has ended stays so", async () => {
    const server = await open();
    const running = await create(server, "slow");
    await reaches(server, running.id, "in_progress");
    const waiting = await create(server, "slow");
    const done = await create(server, "a");
    for (const { id } of [waiting, running]) {
      const { status, json } = await call(server, "POST", `/v1/videos/${id}/cancel`);
      expect(status).toBe(200);
      expect(videoSchema.parse(json)).toMatchObject({ status: "failed", error: { code: "cancelled" } });
    }
    expect((await call(server, "POST", `/v1/videos/${waiting.id}/cancel`)).status).toBe(200);
    await reaches(server, done.id, "completed");
    const late = await call(server, "POST", `/v1/videos/${done.id}/cancel`);
    expect([late.status, late.headers.get("x-should-retry")]).toEqual([409, "false"]);
    expect(engines).toHaveLength(1);
  });

  test("a video that is deleted while it runs leaves nothing", async () => {
    const server = await open();
    const { id } = await create(server, "slow");
    await reaches(server, id, "in_progress");
    expect((await call(server, "DELETE", `/v1/videos/${id}`)).json).toEqual({
      ...{ id, object: "video.deleted", deleted: true },
    });
    expect((await call(server, "GET", `/v1/videos/${id}`)).status).toBe(404);
    expect(readdirSync(join(folder, "videos"))).toEqual([]);
    expect(videoListSchema.parse((await call(server, "GET", "/v1/videos")).json).data).toEqual([]);
  });

  test("two groups of workers make two videos at once, and one that dies leaves the other alone", async () => {
    const server = await open({ replicas: 2 });
    const videos = [await create(server, "slow"), await create(server, "slow too")];
    for (const { id } of videos) await reaches(server, id, "in_progress");
    const last = await create(server, "crash");
    expect((await get(server, last.id)).queue_position).toBe(1);
    await call(server, "DELETE", `/v1/videos/${videos[0]?.id}`);
    await reaches(server, last.id, "failed");
    expect((await get(server, videos[1]?.id ?? "")).status).toBe("in_progress");
    expect((await call(server, "GET", "/readyz")).status).toBe(200);
  });

  test("deadlines hold in the queue and while it runs", async () => {
    const server = await open();
    const running = await create(server, "slow");
    const waiting = await create(server, "a", { deadline_seconds: 0.05 });
    expect((await reaches(server, waiting.id, "failed")).error?.code).toBe("deadline_exceeded");
    expect((await get(server, running.id)).status).toBe("in_progress");
  });

  test("a request under the same key makes no twin, however fast it comes", async () => {
    const server = await open({ capacity: 1 });
    const { id } = await create(server, "slow");
    await reaches(server, id, "in_progress");
    const send = (prompt: string) => call(server, "POST", "/v1/videos", { prompt }, { "idempotency-key": "k" });
    const ids = (await Promise.all([send("a"), sleep(5).then(() => send("a"))])).map(({ json }) => json);
    const again = await send("a");
    const parsed = z.object({ id: z.string() });
    expect(new Set([...ids, again.json].map((each) => parsed.parse(each).id)).size).toBe(1);
    expect((await send("b")).status).toBe(422);
  });
});

/** Reads a stream of events until one fits. @returns their names and data. */
async function eventsUntil(server: VideoServer, path: string, enough: (name: string, data: string) => boolean) {
  const response = await fetch(`${server.address}/v1/videos/${path}`);
  const seen: { name: string; data: string }[] = [];
  let text = "";
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk).toString();
    const parts = text.split("\n\n");
    text = parts.pop() ?? "";
    for (const part of parts) {
      const [, name = "", data = ""] = /^event: (\w+)\ndata: (.*)$/.exec(part) ?? [];
      seen.push({ name, data });
      if (enough(name, data)) return seen;
    }
  }
  return seen;
}

test("who follows a video sees it as it is made, also who comes late; who wants no pictures gets none", async () => {
  const server = await open();
  const before = await create(server, "slow, and nobody looks");
  await reaches(server, before.id, "in_progress");
  const { id } = await create(server, "slow");
  const following = eventsUntil(server, `${id}/events`, (name) => name === "preview");
  const quiet = eventsUntil(server, `${id}/events?preview=false`, (name) => name === "progress");
  await vi.waitFor(async () => expect((await get(server, id)).queue_position).toBe(1));
  await call(server, "POST", `/v1/videos/${before.id}/cancel`);
  const seen = await following;
  const preview = previewEventSchema.parse(JSON.parse(seen.at(-1)?.data ?? ""));
  expect(preview).toMatchObject({ step: 1, frames: 2, width: 3, height: 4 });
  const image = decode(Buffer.from(preview.b64_json, "base64"));
  expect([image.width, image.height]).toEqual([3, 8]);
  expect(Math.abs((image.data[0] ?? 0) - 200)).toBeLessThan(4);
  expect((await quiet).some(({ name }) => name === "preview")).toBe(false);
  const late = await eventsUntil(server, `${id}/events`, (name) => name === "preview");
  expect(late.map(({ name }) => name)).toEqual(["status", "progress", "preview"]);
});

test("who waits is told where it stands", async () => {
  const server = await open();
  const videos = [await create(server, "slow"), await create(server, "slow"), await create(server, "slow")];
  const [first, second, third] = videos.map(({ id }) => id);
  await reaches(server, first ?? "", "in_progress");
  const places = eventsUntil(server, `${third}/events`, (_, data) => data.includes('"queue_position":1'));
  // Only once the stream is there.
  await vi.waitFor(async () => expect((await get(server, third ?? "")).queue_position).toBe(2));
  await sleep(100);
  await call(server, "DELETE", `/v1/videos/${second}`);
  expect((await places).map(({ data }) => videoSchema.parse(JSON.parse(data)).queue_position)).toEqual([2, 1]);
});

test("a video has a thumbnail and a sheet of pictures, which are sent as JPEG", async () => {
  const server = await open();
  const { id } = await create(server, "a", { num_frames: 9 });
  await reaches(server, id, "completed");
  const content = async (variant: string) => {
    const response = await fetch(`${server.address}/v1/videos/${id}/content?variant=${variant}`);
    const bytes = Buffer.from(await response.arrayBuffer());
    if (!response.ok) return [response.status];
    const { width, height } = decode(bytes);
    return [response.headers.get("content-type"), response.headers.get("content-disposition"), width, height];
  };
  const named = (name: string) => `inline; filename="${id}.${name}.jpg"`;
  expect(await content("thumbnail")).toEqual(["image/jpeg", named("thumbnail"), 16, 16]);
  // Nine pictures, five a row.
  expect(await content("spritesheet")).toEqual(["image/jpeg", named("spritesheet"), 80, 32]);
  expect(await content("poster")).toEqual([400]);
});

test("the page is one file that may load nothing else, and the model says what it may ask for", async () => {
  const server = await open({ key: withKey.authorization.slice("Bearer ".length) });
  const { status, json, headers } = await call(server, "GET", "/");
  const html = String(json);
  expect([status, headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"]);
  const policy = headers.get("content-security-policy") ?? "";
  expect(policy).toMatch(/^default-src 'none'; script-src 'sha256-[\w+/=]{44}'; style-src 'sha256-[\w+/=]{44}';/);
  expect(policy).not.toContain("unsafe");
  for (const tag of ["script", "style"]) {
    const [, text = ""] = new RegExp(`<${tag}>(.+?)</${tag}>`, "s").exec(html) ?? [];
    expect(policy).toContain(createHash("sha256").update(text).digest("base64"));
  }
  expect(html).not.toMatch(/(?:src|href)="?(?:https?:)?\/\//);
  const models = modelListSchema.parse((await call(server, "GET", "/v1/models", undefined, withKey)).json);
  expect(models.data).toMatchObject([
    { id: "tiny", sizes: ["16x16"], num_frames: 1, max_num_frames: 9, fps: 16, num_inference_steps: 2, loras: [] },
  ]);
});

test("events tell of a video from where it is to its end", async () => {
  const server = await open();
  const { id } = await create(server, "a");
  const response = await fetch(`${server.address}/v1/videos/${id}/events`);
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  const events = (await response.text()).trim().split("\n\n");
  expect(events[0]).toMatch(/^event: status\n/);
  expect(events.at(-1)).toMatch(/^event: status\ndata: \{.*"status":"completed"/);
});

test("what a server before has begun is begun once more, but not a third time, nor where it was cancelled", async () => {
  const store = await Store.open(folder);
  const settings = {
    prompt: "a",
    width: 16,
    height: 16,
    frames: 1,
    fps: 16,
    steps: 2,
    guideScale: 5,
    shift: 5,
    seed: "1",
  };
  const begun = async (attempts: number, cancelled: boolean) => {
    const id = store.newId(attempts);
    await store.add({ id, createdAt: 1, status: "in_progress", settings, attempts, cancelled });
    return id;
  };
  const [once, twice, unwanted] = [await begun(1, false), await begun(2, false), await begun(1, true)];
  await store.close();
  const server = await open({}, false);
  expect((await get(server, once)).status).toBe("queued");
  expect((await get(server, twice)).error?.code).toBe("server_restarted");
  expect((await get(server, unwanted)).error?.code).toBe("cancelled");
});

test("a server that ends keeps what waits, has the video at hand wait too where time is short, and takes nothing more", async () => {
  const server = await open();
  const running = await create(server, "slow");
  await reaches(server, running.id, "in_progress");
  const waiting = await create(server, "a");
  const drained = server.drain(100, never);
  expect((await call(server, "POST", "/v1/videos", { prompt: "b" })).status).toBe(503);
  expect((await call(server, "GET", "/readyz")).status).toBe(503);
  await drained;
  servers = [];
  const lines = readFileSync(join(folder, "journal.jsonl"), "utf8");
  const next = await open({}, false);
  // It was not the video's fault, so it may be begun twice again.
  expect(lines.trim().split("\n").at(-1)).toContain('"attempts":0');
  expect((await get(next, running.id)).queue_position).toBe(1);
  expect((await get(next, waiting.id)).queue_position).toBe(2);
});
