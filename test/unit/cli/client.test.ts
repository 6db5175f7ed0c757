import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { z } from "zod";
import { main } from "../../../src/cli/main.js";
import { createClient } from "../../../src/client/client.js";
import { packageRoot } from "../../../src/paths.js";
import type { VideoServer } from "../../../src/serve/server.js";
import { startFakeServer } from "../serve/fake-server.js";
import { catchOutput, written } from "./written.js";

const never = new AbortController().signal;
const key = "the-key-of-this-test";
const documentSchema = z.object({
  videos: z.array(z.object({ id: z.string(), status: z.string() })).optional(),
  video: z.object({ id: z.string(), prompt: z.string(), seed: z.number(), num_frames: z.int() }).optional(),
  out: z.string().optional(),
});

let folder = "";
let server: VideoServer;
// The encoder that comes with the package starts sooner than ffmpeg.
const { PATH } = process.env;
beforeAll(async () => {
  process.env.PATH = "";
  folder = mkdtempSync(join(tmpdir(), "ditrun-client-"));
  server = await startFakeServer(join(folder, "data"), { key });
});
afterAll(async () => {
  await server.drain(0, never);
  process.env.PATH = PATH;
  rmSync(folder, { recursive: true });
});
catchOutput();
beforeEach(() => {
  vi.stubEnv("DITRUN_API_KEY", key);
});

const run = (...words: string[]) => main(["client", ...words, "--url", server.address]);
const document = () => documentSchema.parse(JSON.parse(written.stdout));

test("generate makes a video and writes its file; the others tell of it, get it again and remove it", async () => {
  const out = join(folder, "a.mp4");
  const options = ["--frames", "5", "--seed", "7", "--steps", "2", "--size", "16*16", "--out", out];
  expect([await run("generate", "--prompt", "A red car", ...options), written.stderr]).toEqual([
    0,
    expect.stringMatching(/video_\w+ is accepted, with seed 7\.\n$/),
  ]);
  expect(written.stdout).toMatch(/a\.mp4: 16x16, 5 frames, seed 7, made in \d+\.\d s\.\n$/);
  expect(readFileSync(out).subarray(4, 8).toString()).toBe("ftyp");

  written.stdout = "";
  expect(await run("generate", "--prompt", "A blue car", "--quiet", "--json", "--out", out)).toBe(0);
  const { video, out: second } = document();
  expect([second, video?.prompt]).toEqual([join(folder, "a-2.mp4"), "A blue car"]);
  const id = video?.id ?? "";

  written.stdout = "";
  expect(await run("list")).toBe(0);
  expect(written.stdout).toMatch(/^id +status.*\nvideo_\w+ +completed.*A blue car\nvideo_\w+ +completed.*A red car\n$/);
  written.stdout = "";
  expect(await run("list", "--limit", "1", "--json")).toBe(0);
  expect(document().videos?.map((each) => each.id)).toEqual([id]);
  written.stdout = "";
  expect(await run("get", id)).toBe(0);
  expect(written.stdout).toContain(id);
  expect(await run("download", id, "--overwrite", "--out", out)).toBe(0);
  expect(await run("delete", id)).toBe(0);
  expect(await run("get", id)).toBe(2);
  expect(written.stderr).toContain(`There is no video ${id}.`);
  expect(readdirSync(folder).toSorted()).toEqual(["a-2.mp4", "a.mp4", "data"]);
});

test.each([
  [["generate"], 2, "There is no prompt: say with --prompt"],
  [["generate", "--prompt", "a", "--frames", "6"], 2, '"num_frames" is 6'],
  [["generate", "--prompt", "a", "--out", "/nowhere/a.mp4"], 2, "there is no folder /nowhere"],
  [["generate", "--prompt", "fail"], 5, "has failed (not_finite): Step 3 is not finite."],
  [["cancel"], 2, "client cancel needs an ID"],
  [["download", "a", "b"], 2, "takes one ID"],
  [["list", "--url", "gpu1:8000"], 2, "it must be one of http or https"],
  [["list", "--api-key-file", "/nowhere/key"], 2, "--api-key-file /nowhere/key cannot be read"],
])("client %j ends with %i", async (words, code, message) => {
  expect([
    await main(["client", ...words, ...(words.includes("--url") ? [] : ["--url", server.address])]),
    written.stderr,
  ]).toEqual([code, expect.stringContaining(message)]);
});

test("a wrong key is refused, and a server that is not there is told of", async () => {
  vi.stubEnv("DITRUN_API_KEY", "another-key-of-this-test");
  expect([await run("list"), written.stderr]).toEqual([2, expect.stringContaining("The key is missing or wrong")]);
});

test("Ctrl-C cancels the video, and leaves no file", async () => {
  const line = ["client", "generate", "--prompt", "slow", "--url", server.address, "--out", join(folder, "slow.mp4")];
  const generate = execa(process.execPath, [join(packageRoot, "bin/ditrun.js"), ...line], {
    ...{ reject: false, stdin: "ignore", env: { DITRUN_API_KEY: key } },
  });
  const id = await new Promise<string>((resolve) => {
    let said = "";
    generate.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      const [found] = /video_\w+/.exec(said) ?? [];
      if (found !== undefined) resolve(found);
    });
  });
  const client = createClient({ url: server.address, apiKey: key });
  await vi.waitFor(async () => expect((await client.videos.retrieve(id)).status).toBe("in_progress"), {
    timeout: 20_000,
  });
  generate.kill("SIGINT");
  const { exitCode, stderr: told } = await generate;
  expect([exitCode, told]).toEqual([130, expect.stringContaining(`${id} is cancelled.`)]);
  expect((await client.videos.retrieve(id)).error?.code).toBe("cancelled");
  expect(readdirSync(folder).filter((name) => name.startsWith("slow"))).toEqual([]);
});
