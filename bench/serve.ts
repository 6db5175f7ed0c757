#!/usr/bin/env node
// What `ditrun serve` costs: polling beside an empty node:http server, and a warm request beside its own sampling and decoding.
//   npx tsx bench/serve.ts [--device cuda --model 1.4B --weights random --plan fp8] [--size 832*480 --frames 81 --steps 50]
//                          [--clients 64] [--every 100] [--seconds 10] [--requests 3] [--out FILE.json]
// or, where there is no tsx:  npx tsc -p tsconfig.bench.json && node dist-bench/serve.js
// Needs `npm run build`. Without options it takes the small model on the CPU.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { execa } from "execa";
import { z } from "zod";
import { pollingCost } from "./serve/polling.js";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { values } = parseArgs({
  options: {
    ...{ device: { type: "string", default: "cpu" }, model: { type: "string", default: "tiny" } },
    ...{ weights: { type: "string" }, plan: { type: "string" }, size: { type: "string" } },
    ...{ frames: { type: "string", default: "5" }, steps: { type: "string", default: "4" }, out: { type: "string" } },
    ...{ clients: { type: "string", default: "64" }, every: { type: "string", default: "100" } },
    ...{ seconds: { type: "string", default: "10" }, requests: { type: "string", default: "3" } },
  },
});
const polling = { clients: Number(values.clients), everyMs: Number(values.every), seconds: Number(values.seconds) };
const videoSchema = z.object({
  ...{ id: z.string(), status: z.string(), error: z.object({ message: z.string() }).nullable() },
  stage_durations: z.record(z.string(), z.number()).nullable(),
});
type Video = z.infer<typeof videoSchema>;

/** Starts a server, and waits for its `Ready: ADDRESS`. */
async function start(file: string, words: readonly string[], waitMs: number) {
  const server = execa("node", [join(root, file), ...words], { reject: false, stdin: "ignore", stdout: "ignore" });
  let said = "";
  const ready = new Promise<string>((resolve, reject) => {
    server.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      const [, address] = /Ready: (http:\/\/[^/\s]+)/.exec(said) ?? [];
      if (address !== undefined) resolve(address);
    });
    void server.then(() => reject(new Error(`${file} ended: ${said}`)));
    void sleep(waitMs, undefined, { ref: false }).then(() => reject(new Error(`${file} is not ready: ${said}`)));
  });
  const address = await ready;
  const end = async () => {
    server.kill("SIGTERM");
    await server;
  };
  return { address, pid: server.pid ?? 0, end };
}

/** @throws Error where the server refuses. */
async function call(address: string, method: string, path: string, body?: object): Promise<Video> {
  const json = body && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(`${address}${path}`, { method, ...json });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return videoSchema.parse(JSON.parse(text));
}

/** As a client sees a video: from its request to its last byte. Events tell of the end, so that no poll adds to it. */
async function warmRequest(address: string, seed: number) {
  const begun = performance.now();
  const { id } = await call(address, "POST", "/v1/videos", { prompt: "A red car", seed, num_inference_steps: steps });
  await (await fetch(`${address}/v1/videos/${id}/events`)).text();
  const file = await (await fetch(`${address}/v1/videos/${id}/content`)).arrayBuffer();
  const seconds = (performance.now() - begun) / 1000;
  const { status, error, stage_durations: stages } = await call(address, "GET", `/v1/videos/${id}`);
  if (status !== "completed" || !stages) throw new Error(`${id} is ${status}: ${error?.message}`);
  const { sample = 0, decode = 0 } = stages;
  return { seconds, sample, decode, bytes: file.byteLength, beside: seconds - (sample + decode) };
}

const steps = Number(values.steps);
const folder = mkdtempSync(join(tmpdir(), "ditrun-bench-"));
const endings: (() => Promise<void>)[] = [];
try {
  const given = ["weights", "plan", "size"] as const;
  const words = given.flatMap((name) => (values[name] === undefined ? [] : [`--${name}`, values[name]]));
  const own = [
    "--model",
    values.model,
    "--device",
    values.device,
    "--frames",
    values.frames,
    "--max-frames",
    "81",
    "--port",
    "0",
  ];
  const server = await start(
    "bin/ditrun.js",
    ["serve", ...own, ...words, "--data-dir", folder, "--queue", "512"],
    600_000,
  );
  endings.push(server.end);
  const { address } = server;

  const warm = [];
  for (let request = 0; request < Number(values.requests); request++) warm.push(await warmRequest(address, request));
  for (const { seconds, sample, decode, bytes, beside } of warm) {
    console.log(
      `A warm request: ${seconds.toFixed(3)} s; sampling ${sample.toFixed(3)} s, decoding ${decode.toFixed(3)} s, all else ` +
        `${beside.toFixed(3)} s; ${bytes} bytes. Of 1.02 × (sampling + decoding) + 0.3 s: ` +
        `${((100 * seconds) / (1.02 * (sample + decode) + 0.3)).toFixed(1)} %.`,
    );
  }

  // One that runs all the while, and as many that wait behind it.
  const long = { prompt: "A red car", num_inference_steps: 200, num_frames: 81 };
  const videos: string[] = [];
  for (let client = 0; client < polling.clients; client++)
    videos.push((await call(address, "POST", "/v1/videos", long)).id);
  const pathOf = (client: number) => `/v1/videos/${videos[client]}`;
  const length = (await (await fetch(`${address}${pathOf(1)}`)).text()).length;
  const empty = await start("bench/serve/empty-server.js", [`${length}`], 10_000);
  endings.push(empty.end);
  const floor = await pollingCost(empty.pid, () => `${empty.address}/`, {}, polling);
  const waiting = await pollingCost(server.pid, (client) => `${address}${pathOf(client)}`, {}, polling);
  // One that has been made meanwhile answers 409.
  for (const id of videos.toReversed()) await fetch(`${address}/v1/videos/${id}/cancel`, { method: "POST" });
  const final = await pollingCost(server.pid, (client) => `${address}${pathOf(client)}`, {}, polling);
  const rows = { "an empty server": floor, "videos that wait": waiting, "videos that have ended": final };
  for (const [what, { requests, microseconds, percent }] of Object.entries(rows)) {
    const times = (microseconds / floor.microseconds).toFixed(2);
    console.log(
      `Polling ${what}: ${requests} requests in ${polling.seconds} s, ${microseconds.toFixed(1)} µs each, ` +
        `${percent.toFixed(2)} % of a core; ${times} times an empty server.`,
    );
  }
  if (values.out !== undefined)
    writeFileSync(values.out, `${JSON.stringify({ options: values, warm, polling: rows }, null, 2)}\n`);
} finally {
  for (const end of endings) await end();
  rmSync(folder, { recursive: true, force: true });
}
