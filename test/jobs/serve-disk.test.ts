import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { z } from "zod";
import type { Video } from "../../src/client/types.js";
import { type Serving, serveTiny } from "./serving.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-serve-disk-"));
const running: Serving[] = [];
afterAll(async () => {
  for (const server of running) server.kill("SIGKILL");
  for (const server of running) await server.ended();
  rmSync(folder, { recursive: true });
});

/** A disk that can be filled and emptied while a server writes to it. */
interface Disk {
  readonly under: readonly string[];
  /** Where the files of a server are for this process. */
  seen(server: Serving, path: string): string;
  fill(server: Serving): void;
  empty(server: Serving): void;
}

const limit = (size: string, { pid }: Serving) => {
  expect(spawnSync("prlimit", ["--pid", `${pid}`, `--fsize=${size}:`], { encoding: "utf8" }).stderr).toBe("");
};

/** No root is needed: the server, and what it starts from then on, may write no file beyond its first byte. */
const limited: Disk = {
  under: [],
  seen: (_server, path) => path,
  fill: (server) => limit("1", server),
  empty: (server) => limit("unlimited", server),
};

const mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"];
const small = 'mount -t tmpfs -o size=256k none "$0" && exec "$@"';

/** 256 KiB in the server's own view of the file system. */
const tmpfs: Disk = {
  under: [...mount, small, join(folder, "tmpfs")],
  seen: ({ pid }, path) => `/proc/${pid}/root${path}`,
  fill(server) {
    const ballast = this.seen(server, join(folder, "tmpfs", "ballast"));
    expect(() => writeFileSync(ballast, Buffer.alloc(2 ** 20))).toThrow("ENOSPC");
    expect(() => {
      for (let index = 0; ; index++) writeFileSync(`${ballast}-${index}`, "a page");
    }).toThrow("ENOSPC");
  },
  empty(server) {
    rmSync(this.seen(server, join(folder, "tmpfs", "ballast")));
  },
};

const mayMount = spawnSync(mount[0] ?? "", [...mount.slice(1), small, tmpdir(), "true"]).status === 0;
if (!mayMount) process.stderr.write("No file system can be mounted here (unshare): its test is skipped.\n");

const errorSchema = z.object({ error: z.object({ code: z.string(), message: z.string() }) });
const lineSchema = z.object({ put: z.object({ id: z.string(), status: z.string() }) });

test.each([["limited", limited], ...(mayMount ? [["tmpfs", tmpfs] as const] : [])] as const)(
  "a full disk (%s) refuses videos, fails the one at hand, and is forgotten once there is room",
  async (name, disk) => {
    mkdirSync(join(folder, name));
    const data = join(folder, name, "data");
    const server = await serveTiny(data, { under: disk.under, options: ["--max-frames", "81"] });
    running.push(server);
    const { client, address } = server;
    const few = { prompt: "a", num_inference_steps: 2 };
    const first = await client.videos.create(few);
    expect((await client.videos.wait(first.id)).status).toBe("completed");

    const atHand = await client.videos.create({ ...few, num_inference_steps: 100 });
    const reaches = (id: string, status: Video["status"]) =>
      vi.waitFor(async () => expect((await client.videos.retrieve(id)).status).toBe(status), { timeout: 30_000 });
    await reaches(atHand.id, "in_progress");
    disk.fill(server);
    // The journal may end in a page that has room for a shorter one.
    const long = "a".repeat(10_000);
    const refused = await fetch(`${address}/v1/videos`, {
      ...{
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...few, prompt: long }),
      },
    });
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([507, "10"]);
    expect(errorSchema.parse(await refused.json()).error.code).toBe("disk_full");
    const ids: string[] = [];
    for await (const { id } of client.videos.list()) ids.push(id);
    expect(ids).toEqual([atHand.id, first.id]);
    expect((await (await client.videos.content(first.id)).arrayBuffer()).byteLength).toBeGreaterThan(1000);

    // It cannot be written, and that cannot be written down either where nothing was given back.
    await vi.waitFor(() => expect(server.said()).toMatch(/tried again every second|disk_full|: failed, /), {
      timeout: 30_000,
    });
    disk.empty(server);
    await reaches(atHand.id, "failed");
    const { error } = await client.videos.retrieve(atHand.id);
    // ffmpeg does not hear why its limit ends it.
    expect(name === "limited" ? ["disk_full", "video_encoder"] : ["disk_full"]).toContain(error?.code);
    expect(error?.message).not.toContain(folder);

    const last = await client.videos.create(few);
    expect((await client.videos.wait(last.id)).status).toBe("completed");
    const journal = readFileSync(disk.seen(server, join(data, "journal.jsonl")), "utf8");
    server.kill("SIGTERM");
    expect(await server.ended()).toBe(0);
    const states = journal
      .trim()
      .split("\n")
      .map((line) => lineSchema.parse(JSON.parse(line)).put);
    const final = states.filter(({ status }) => status === "completed" || status === "failed").map(({ id }) => id);
    expect(final).toEqual([first.id, atHand.id, last.id]);
  },
);
