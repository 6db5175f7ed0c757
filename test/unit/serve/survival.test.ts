import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { createClient } from "../../../src/client/client.js";
import type { VideoServer } from "../../../src/serve/server.js";
import { FakeEngine } from "./fake-engine.js";
import { startFakeServer } from "./fake-server.js";

const never = new AbortController().signal;
const folders: string[] = [];
const servers: VideoServer[] = [];
const { PATH } = process.env;
beforeAll(() => {
  process.env.PATH = "";
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.drain(0, never);
});
afterAll(() => {
  process.env.PATH = PATH;
  for (const folder of folders) rmSync(folder, { recursive: true });
});

async function start(engine = new FakeEngine()) {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-survival-"));
  folders.push(folder);
  const server = await startFakeServer(folder, { openEngine: async () => engine });
  servers.push(server);
  return { server, folder, client: createClient({ url: server.address }) };
}

/** A client that sends this and then does what it likes. */
function send({ address }: VideoServer, text: string): Socket {
  const { hostname, port } = new URL(address);
  const socket = connect(Number(port), hostname);
  socket.write(text.replaceAll("\n", "\r\n"));
  return socket.once("error", () => undefined);
}

const getOf = (path: string) => `GET ${path} HTTP/1.1\nhost: localhost\n\n`;
const createOf = (prompt: string) => {
  const body = JSON.stringify({ prompt });
  const head = `POST /v1/videos HTTP/1.1\nhost: localhost\ncontent-type: application/json\ncontent-length: ${body.length}`;
  return `${head}\n\n${body}`;
};
/** Connections and videos that are open in this process. */
function openFiles(): number {
  const names = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "";
    }
  });
  return names.filter((name) => /^socket:|\.mp4$/.test(name)).length;
}

test("readers of 1 KB a second hold up nobody, and the server holds little for them", async () => {
  const { server, folder, client } = await start();
  const { video } = await client.videos.generate({ prompt: "a" });
  // As long as a long video's.
  writeFileSync(join(folder, "videos", `${video.id}.mp4`), Buffer.alloc(32 * 2 ** 20));
  const before = process.memoryUsage();
  const readers = Array.from({ length: 30 }, () => {
    const socket = send(server, getOf(`/v1/videos/${video.id}/content`));
    let read = 0;
    const timer = setInterval(() => {
      const chunk: unknown = socket.read(102);
      if (chunk instanceof Buffer) read += chunk.length;
    }, 100);
    return { socket, timer, read: () => read };
  });
  await vi.waitFor(() => expect(readers.every(({ read }) => read() > 300)).toBe(true), { timeout: 20_000 });
  const { content } = await client.videos.generate({ prompt: "b" });
  expect((await content.arrayBuffer()).byteLength).toBeGreaterThan(500);
  const after = process.memoryUsage();
  // All of it would be 960 MiB.
  expect((after.arrayBuffers - before.arrayBuffers + after.external - before.external) / 2 ** 20).toBeLessThan(60);
  for (const { socket, timer } of readers) {
    clearInterval(timer);
    socket.destroy();
  }
});

test("clients that go in the middle of anything leave no file open, and what was accepted is made", async () => {
  const { server, folder, client } = await start();
  const { video } = await client.videos.generate({ prompt: "a" });
  writeFileSync(join(folder, "videos", `${video.id}.mp4`), Buffer.alloc(8 * 2 ** 20));
  const slow = await client.videos.create({ prompt: "slow" });
  await vi.waitFor(async () => expect((await client.videos.retrieve(slow.id)).status).toBe("in_progress"));
  const before = openFiles();
  for (let round = 0; round < 5; round++) {
    const whole = send(server, createOf("b"));
    if (round < 3) await sleep(10);
    const sockets = [
      ...(round < 3 ? [whole] : []),
      send(server, createOf("never whole").slice(0, -4)),
      send(server, getOf(`/v1/videos/${video.id}/content`)),
      send(server, getOf(`/v1/videos/${slow.id}/events`)),
    ];
    await sleep(10);
    for (const socket of sockets) socket.destroy();
    whole.destroy();
  }
  await vi.waitFor(() => expect(openFiles()).toBeLessThanOrEqual(before), { timeout: 10_000 });
  await client.videos.cancel(slow.id);
  const prompts: string[] = [];
  await vi.waitFor(
    async () => {
      prompts.length = 0;
      for await (const each of client.videos.list()) {
        prompts.push(each.prompt);
        expect(["completed", "failed"]).toContain(each.status);
      }
    },
    { timeout: 40_000, interval: 200 },
  );
  expect(prompts.filter((prompt) => prompt === "b").length).toBeGreaterThanOrEqual(3);
  expect(prompts).not.toContain("never whole");
  expect(await (await client.videos.generate({ prompt: "c" })).content.arrayBuffer()).toBeDefined();
});

test("/healthz says which ranks do not answer", async () => {
  const engine = new FakeEngine();
  const { server } = await start(engine);
  const health = async () => {
    const response = await fetch(`${server.address}/healthz`);
    return [response.status, await response.json()];
  };
  const replica = { ready: true, healthy: true, restarts: 0, silent_ranks: [] };
  expect(await health()).toEqual([200, { healthy: true, replicas: [replica] }]);
  engine.silent = [1];
  expect(await health()).toEqual([
    503,
    { healthy: false, replicas: [{ ...replica, healthy: false, silent_ranks: [1] }] },
  ]);
});
