import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { documentSchemas } from "../../src/views/documents.js";
import { copyChanged } from "../checkpoints.js";
import { goldenCheckpoints } from "../unit/worker/wan/golden.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const generate = (...args: string[]) => generateOf("tiny", ...args);
const generateOf = (model: string, ...args: string[]) =>
  execa("node", [resolve("bin/ditrun.js"), "wan", "--device", "cpu", "--model", model, "generate", ...args], {
    cwd: folder,
    reject: false,
    stdin: "ignore",
    env: { DITRUN_KERNELS: "", MASTER_PORT: "" },
  });

/** An MP4 has no date in it: the same frames make the same bytes. */
const bytesOf = (name: string) => readFile(join(folder, name));
const size = ["--size", "64*32", "--frames", "5"];
const small = [...size, "--steps", "2"];

const videosSchema = z.object({
  videos: z.array(z.object({ prompt: z.string(), video: z.object({ out: z.string() }) })),
});

test("a file's prompts make the videos and dumps of commands of their own, on workers that are started once", async () => {
  await writeFile(join(folder, "p.txt"), "\uFEFF# two of them\r\n\r\nA red car\r\n   # not this\r\n  A blue boat \r\n");
  const { exitCode, stdout, stderr } = await generate(
    ...[
      "--prompts",
      "p.txt",
      "--nproc",
      "2",
      "--cfg",
      "2",
      ...small,
      "--out",
      "both.mp4",
      "--dump",
      "both.safetensors",
    ],
    ...["--seed", "-1", "--log-level", "debug", "--json"],
  );
  expect(exitCode, stderr).toBe(0);
  documentSchemas.videos.parse(JSON.parse(stdout));
  expect(videosSchema.parse(JSON.parse(stdout)).videos).toEqual([
    { prompt: "A red car", video: { out: "both.mp4" } },
    { prompt: "A blue boat", video: { out: "both-2.mp4" } },
  ]);
  expect(stderr).toContain("Video 2 of 2, p.txt line 5: A blue boat");
  expect(stderr.match(/Rank \d is process \d+\./g)).toHaveLength(2);
  expect(stderr.match(/Prepared the models/g)).toHaveLength(1);
  const [, seed = ""] = /drew the seed (\d+)/.exec(stderr) ?? [];
  expect(stderr.match(new RegExp(`seed ${seed}, noise`, "g"))).toHaveLength(2);

  // The second: the first finds everything as a command of its own does.
  const alone = ["--prompt", "A blue boat", "--nproc", "2", "--cfg", "2", ...small, "--seed", seed];
  const run = await generate(...alone, "--out", "one.mp4", "--dump", "one.safetensors", "--json");
  expect(run.exitCode, run.stderr).toBe(0);
  // The document of one prompt has no list.
  expect(JSON.parse(run.stdout).video.out).toBe("one.mp4");
  for (const ending of ["mp4", "safetensors"]) {
    expect((await bytesOf(`one.${ending}`)).equals(await bytesOf(`both-2.${ending}`))).toBe(true);
  }
  expect((await bytesOf("both.mp4")).equals(await bytesOf("both-2.mp4"))).toBe(false);
});

test("without --overwrite each takes the next free number, with it number N is replaced", async () => {
  const names = async () => (await readdir(folder)).filter((name) => name.startsWith("n")).sort();
  await writeFile(join(folder, "n-2.mp4"), "kept");
  const line = ["--prompt", "a", "--prompt=b", "--size", "32*32", "--frames", "1", "--steps", "1", "--out", "n.mp4"];
  const first = await generate(...line);
  expect(first.exitCode, first.stderr).toBe(0);
  expect(first.stdout).toMatch(/Video 1 of 2, --prompt number 1: a\n.*n\.mp4: 1 frame.*n-3\.mp4: 1 frame/s);
  expect(await names()).toEqual(["n-2.mp4", "n-3.mp4", "n.mp4"]);
  expect(String(await bytesOf("n-2.mp4"))).toBe("kept");
  const second = await generate(...line, "--overwrite");
  expect(second.exitCode, second.stderr).toBe(0);
  expect(await names()).toEqual(["n-2.mp4", "n-3.mp4", "n.mp4"]);
  expect((await bytesOf("n-2.mp4")).equals(await bytesOf("n-3.mp4"))).toBe(true);
});

test("a value that is not finite ends the command; the videos before it stay", async () => {
  const { diffusers } = goldenCheckpoints;
  const broken = join(folder, "broken");
  await mkdir(join(broken, "text_encoder"), { recursive: true });
  for (const entry of await readdir(diffusers)) {
    if (entry !== "text_encoder") await symlink(join(diffusers, entry), join(broken, entry));
  }
  const weights = join("text_encoder", "model.safetensors");
  await copyFile(join(diffusers, "text_encoder", "config.json"), join(broken, "text_encoder", "config.json"));
  const b = 87;
  await copyChanged(join(diffusers, weights), join(broken, weights), "shared.weight", (stored) => {
    const data = stored.data.slice();
    new DataView(data.buffer).setUint16(2 * (stored.shape[1] ?? 0) * b, 0x7fc0, true);
    return { ...stored, data };
  });
  const { exitCode, stdout, stderr } = await generateOf(
    broken,
    ...["--prompt", "a ".repeat(700), "--prompt", "b", "--prompt", "a", "--negative-prompt", ""],
    ...["--size", "32*32", "--frames", "1", "--steps", "1", "--dump", "f.safetensors", "--out", "f.mp4", "--json"],
  );
  expect(exitCode, stderr).toBe(1);
  expect(stderr).toMatch(/--prompt number 1 has \d+ tokens; the model takes 512, so the last \d+ are cut off\./);
  expect(stderr).toContain("Video 2 of 3 was not finished; the one before it is kept.");
  expect(stderr).not.toContain("Video 3 of 3");
  expect(JSON.parse(stdout).error).toMatchObject({
    code: "ERR_NOT_FINITE",
    message: expect.stringContaining("The text encoder's output for the prompt has"),
  });
  const names = (await readdir(folder)).filter((name) => name.startsWith("f"));
  expect(names.sort()).toEqual(["f.mp4", "f.safetensors"]);
});

test("SIGINT during the second ends it; the first stays", async () => {
  const child = generate("--prompt", "a", "--prompt", "b", ...size, "--steps", "300", "--out", "i.mp4");
  let said = "";
  let told = false;
  for await (const line of child.iterable({ from: "stderr" })) {
    said += `${line}\n`;
    if (!told && /Made the models ready again/.test(line)) told = child.kill("SIGINT");
  }
  const { exitCode } = await child;
  expect(exitCode, said).toBe(130);
  expect(said).toContain("ditrun: The job was ended by SIGINT.");
  expect((await readdir(folder)).filter((name) => name.startsWith("i"))).toEqual(["i.mp4"]);
});
