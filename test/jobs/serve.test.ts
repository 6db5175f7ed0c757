import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import OpenAI, { APIError, toFile } from "openai";
import { afterAll, expect, test, vi } from "vitest";
import { z } from "zod";
import { packageRoot } from "../../src/paths.js";

// The tiny model may be any: its sizes are the server's own.

const folder = mkdtempSync(join(tmpdir(), "ditrun-serve-job-"));
const data = join(folder, "data");
const key = "a-key-of-this-test";
const endings: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const end of endings) await end();
  rmSync(folder, { recursive: true });
});

/** Starts a server, and waits until it is ready. */
async function serve() {
  const words = ["serve", "--model", "tiny", "--device", "cpu", "--port", "0", "--data-dir", data, "--frames", "5"];
  const process = execa("node", [join(packageRoot, "bin/ditrun.js"), ...words, "--queue", "4"], {
    ...{ reject: false, stdin: "ignore" },
    env: { DITRUN_KERNELS: "", MASTER_PORT: "", DITRUN_API_KEY: key },
  });
  endings.push(async () => {
    process.kill("SIGKILL");
    await process;
  });
  let said = "";
  const address = await new Promise<string>((resolve, reject) => {
    process.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      const [, found] = /Ready: (\S+)\/videos/.exec(said) ?? [];
      if (found !== undefined) resolve(found);
    });
    void process.then(() => reject(new Error(said)));
  });
  return { process, address, client: clientOf(address) };
}

const clientOf = (baseURL: string, apiKey = key) => new OpenAI({ baseURL, apiKey, maxRetries: 0 });

/** Polls as clients do. */
async function done(client: OpenAI, id: string): Promise<OpenAI.Video> {
  return vi.waitFor(
    async () => {
      const video = await client.videos.retrieve(id);
      expect(["completed", "failed"]).toContain(video.status);
      return video;
    },
    { timeout: 40_000, interval: 100 },
  );
}

async function begun(client: OpenAI, id: string): Promise<void> {
  const status = async () => (await client.videos.retrieve(id)).status;
  await vi.waitFor(async () => expect(await status()).toBe("in_progress"), { timeout: 40_000 });
}

const failureOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: unknown) => (error instanceof APIError ? error : undefined),
  );

/** Fields beside OpenAI's go through its client as they are. */
const asked = (prompt: string, more: object = {}): OpenAI.VideoCreateParams => ({
  prompt,
  ...{ num_inference_steps: 2, seed: 7 },
  ...more,
});

const idSchema = z.object({ id: z.string() });

/** So many steps that it runs until it is stopped. */
const long = { num_inference_steps: 200, num_frames: 5 };

test("OpenAI's client creates, polls, lists, downloads, cancels and deletes", async () => {
  const { client, address, process } = await serve();
  const { data: models } = await client.models.list();
  expect(models.map(({ id }) => id)).toEqual(["tiny"]);

  const created = await client.videos.create(asked("A red car"));
  expect(created).toMatchObject({ object: "video", model: "tiny", prompt: "A red car", error: null });
  const video = await done(client, created.id);
  expect(video).toMatchObject({ status: "completed", progress: 100, seconds: expect.any(String) });

  const content = await client.videos.downloadContent(video.id);
  const bytes = Buffer.from(await content.arrayBuffer());
  expect([content.headers.get("content-type"), bytes.subarray(4, 8).toString()]).toEqual(["video/mp4", "ftyp"]);
  // The same seed makes the same video, and JSON says what a form says.
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json", "idempotency-key": "one" };
  const twin = { method: "POST", headers, body: JSON.stringify(asked("A red car")) };
  const ids = await Promise.all(
    [0, 1].map(async () => idSchema.parse(await (await fetch(`${address}/videos`, twin)).json())),
  );
  const [{ id: twinId } = { id: "" }] = ids;
  expect(ids.map(({ id }) => id)).toEqual([twinId, twinId]);
  await done(client, twinId);
  const url = `${address}/videos/${twinId}/content`;
  const part = await fetch(url, { headers: { authorization: headers.authorization, range: "bytes=4-7" } });
  expect([part.status, await part.text()]).toEqual([206, "ftyp"]);
  expect(part.headers.get("content-range")).toBe(`bytes 4-7/${bytes.length}`);
  const head = await fetch(url, { method: "HEAD", headers: { authorization: headers.authorization } });
  expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, `${bytes.length}`, ""]);

  const stopped = await client.videos.create(asked("A slow one", long));
  await begun(client, stopped.id);
  await client.post(`/videos/${stopped.id}/cancel`);
  expect(await client.videos.retrieve(stopped.id)).toMatchObject({ status: "failed", error: { code: "cancelled" } });

  // Three videos, over pages of two.
  const listed: string[] = [];
  for await (const { id } of client.videos.list({ limit: 2 })) listed.push(id);
  expect(listed).toEqual([stopped.id, twinId, video.id]);

  const notReady = await client.videos.create(asked("Another slow one", long));
  const failures = [
    await failureOf(client.videos.downloadContent(notReady.id)),
    await failureOf(client.videos.retrieve("video_none")),
    await failureOf(client.videos.create(asked("a", { num_frames: 8 }))),
    await failureOf(client.videos.create({ prompt: "a", input_reference: await toFile(Buffer.from("x"), "x.png") })),
    await failureOf(clientOf(address, "another-key-here").videos.list()),
  ];
  expect(failures.map((error) => [error?.status, error?.code, error?.requestID !== undefined])).toEqual([
    [409, "video_not_ready", true],
    [404, "video_not_found", true],
    [400, "invalid_value", true],
    [400, "unsupported_parameter", true],
    [401, "invalid_api_key", true],
  ]);
  for (const id of [notReady.id, ...listed]) expect((await client.videos.delete(id)).deleted).toBe(true);
  expect((await client.videos.list()).data).toEqual([]);
  expect(readdirSync(join(data, "videos"))).toEqual([]);

  process.kill("SIGTERM");
  expect((await process).exitCode).toBe(0);
});

test("after the server is killed, what ran and what waited ends in exactly one final state", async () => {
  const { client, process } = await serve();
  const first = await client.videos.create(asked("A slow one", { ...long, num_inference_steps: 100 }));
  const others = [await client.videos.create(asked("a")), await client.videos.create(asked("b"))];
  await begun(client, first.id);
  process.kill("SIGKILL");
  await process;

  const next = await serve();
  const ids = [first, ...others].map(({ id }) => id);
  for (const id of ids) expect((await done(next.client, id)).status).toBe("completed");
  next.process.kill("SIGTERM");
  expect((await next.process).exitCode).toBe(0);
  const files = ids.flatMap((id) => [".mp4", ".spritesheet.jpg", ".thumbnail.jpg"].map((ending) => `${id}${ending}`));
  expect(readdirSync(join(data, "videos")).toSorted()).toEqual(files.toSorted());
  const finals = [
    ...readFileSync(join(data, "journal.jsonl"), "utf8").matchAll(/"id":"(\w+)".*"status":"completed".*/g),
  ];
  expect(finals.map(([, id]) => id).toSorted()).toEqual(ids.toSorted());
});
