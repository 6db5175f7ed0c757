import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { execa } from "execa";
import { PNG } from "pngjs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { openSafetensors, writeSafetensors } from "../../src/formats/safetensors.js";
import { documentSchemas } from "../../src/views/documents.js";
import { copyChanged, type Stored, spoiled } from "../checkpoints.js";
import { readTensor, relativeL2 } from "../compare.js";
import { expectMp4 } from "../unit/video/mp4.js";
import { caseFile, goldenCheckpoints, goldenModel } from "../unit/worker/wan/golden.js";

const original = goldenCheckpoints.original;
const transformerFile = "diffusion_pytorch_model.safetensors";
const texts: { prompt: string; negative: string } = JSON.parse(
  await readFile("test/golden/data/wan/texts.json", "utf8"),
);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Runs the command line in the test's folder, on the CPU. */
function ditrun(...args: string[]) {
  return execa("node", [resolve("bin/ditrun.js"), "wan", "--device", "cpu", ...args], {
    cwd: folder,
    reject: false,
    stdin: "ignore",
    env: { DITRUN_KERNELS: "", MASTER_PORT: "" },
  });
}

/** The size and steps of the golden video. */
const small = ["--size", "96*64", "--frames", "9", "--steps", "6"];

const tiny = (...args: string[]) => ditrun("generate", "--model", "tiny", "--prompt", "A red car", ...args);

/** A video of a checkpoint that has the golden model's sizes. */
const golden = (checkpoint: string, ...args: string[]) =>
  ditrun("generate", "--model", checkpoint, "--prompt", "A red car", ...small, ...args);

/** A copy of the checkpoint by links, but for its transformer. */
async function checkpointWith(name: string): Promise<string> {
  const copy = join(folder, name);
  await mkdir(copy);
  for (const entry of await readdir(original)) {
    if (entry !== transformerFile) await symlink(join(original, entry), join(copy, entry));
  }
  return copy;
}

/** The checkpoint with one tensor of its transformer changed. */
async function checkpointWhere(name: string, tensor: string, change: (stored: Stored) => Stored) {
  const copy = await checkpointWith(name);
  await copyChanged(join(original, transformerFile), join(copy, transformerFile), tensor, change);
  return copy;
}

const memorySchema = z.object({
  ranks: z.array(z.object({ memory: z.object({ encoderFirst: z.boolean() }) })),
  peakMemoryBytes: z.number(),
});

describe("ditrun wan generate", () => {
  it("takes each part from a file of its own, and makes the same video", async () => {
    const file = await openSafetensors(join(original, transformerFile));
    const tensors: Record<string, Stored> = {};
    for (const name of file.names()) {
      const { dtype, shape } = file.info(name);
      tensors[`model.diffusion_model.${name}`] = { dtype, shape, data: await file.read(name) };
    }
    await file.close();
    await writeSafetensors(join(folder, "prefixed.safetensors"), tensors);
    const diffusers = resolve("test/golden/data/wan/diffusers");
    const files = [
      ...["--transformer", "prefixed.safetensors", "--vae", join(diffusers, "vae/diffusion_pytorch_model.safetensors")],
      ...["--text-encoder", join(diffusers, "text_encoder/model.safetensors")],
    ];
    const videos: Float32Array[] = [];
    for (const [dump, more] of [
      ["parts.safetensors", files],
      ["whole.safetensors", []],
    ] as const) {
      const own = ["--size", "96*64", "--frames", "9", "--steps", "1", "--dump", dump, "--out", "parts.mp4"];
      const { exitCode, stderr } = await ditrun(
        ...["generate", "--model", goldenModel, "--ckpt-dir", original, "--prompt", "A red car"],
        ...own,
        ...more,
      );
      expect(exitCode, stderr).toBe(0);
      videos.push(await readTensor(join(folder, dump), "video"));
    }
    expect(relativeL2(videos[0] ?? new Float32Array(), videos[1] ?? new Float32Array())).toBe(0);
  });

  it("writes a video of the bundled model, by four workers, and says how long each stage took", async () => {
    const { exitCode, stdout, stderr } = await tiny(
      "--nproc",
      "4",
      "--cfg",
      "2",
      "--cp",
      "2",
      "--steps",
      "3",
      "--json",
    );
    expect(exitCode, stderr).toBe(0);
    await expectMp4(join(folder, "video.mp4"), { width: 96, height: 96, frames: 17, fps: 16 });
    expect(String(await readFile(join(folder, "video.mp4")))).toContain('"prompt":"A red car","negativePrompt":"');
    expect(stderr).toContain("Sampled 3 steps in ");
    expect(stderr).toContain("small checkpoint that comes with ditrun");
    const document = documentSchemas.generate.parse(JSON.parse(stdout));
    const { stages, load, forwardMs, secondsPerStep, sampling, plan, worldSize } = document;
    expect([document.command, document.prompt]).toEqual(["wan generate", expect.any(String)]);
    expect(load.milliseconds).toBeLessThan(stages.prepareMs);
    expect(load.bytes).toBeGreaterThan(1e6);
    expect(Object.keys(stages)).toEqual(["prepareMs", "encodeMs", "sampleMs", "decodeMs", "videoMs"]);
    for (const value of [...Object.values(stages), forwardMs.median, secondsPerStep]) expect(value).toBeGreaterThan(0);
    expect(sampling).toEqual({ solver: "unipc", steps: 3, shift: 3, guideScale: 4 });
    expect([plan.mesh, worldSize]).toEqual([{ cfg: 2, cp: 2, tp: 1 }, 4]);
  });

  it("samples the golden video from the golden noise, with the checkpoint's own tokenizer", async () => {
    const given = ["--prompt", texts.prompt, "--negative-prompt", texts.negative, "--init-noise", resolve(caseFile)];
    const { exitCode, stderr } = await ditrun(
      ...["generate", "--model", goldenCheckpoints.diffusers, "--dtype", "fp32", ...small],
      ...[...given, "--dump", "dump.safetensors", "--out", "frames/"],
    );
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toContain("diffusers layout");
    const video = await readTensor(caseFile, "video");
    expect(relativeL2(await readTensor(join(folder, "dump.safetensors"), "video"), video)).toBeLessThan(1e-4);
    const names = await readdir(join(folder, "frames"));
    expect(names.length).toBe(9);
    const png = PNG.sync.read(await readFile(join(folder, "frames", "frame-00008.png")));
    const plane = 64 * 96;
    for (let i = 0; i < plane; i++) {
      const red = ((video[8 * plane + i] ?? Number.NaN) + 1) * 127.5;
      expect(Math.abs((png.data[4 * i] ?? 0) - red)).toBeLessThan(0.55);
    }
  });

  it("makes a video in fp8: linear layers, self-attention and its ring", async () => {
    const given = ["--prompt", texts.prompt, "--negative-prompt", texts.negative, "--init-noise", resolve(caseFile)];
    const { exitCode, stderr } = await ditrun(
      ...["--nproc", "4", "--cfg", "2", "--cp", "2", "--fp8", "generate", "--model", original, ...small, ...given],
      ...["--dump", "fp8.safetensors", "--out", "fp8.mp4", "--json", "fp8.json"],
    );
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toContain("bf16, e4m3 linear + attention + ring");
    await expectMp4(join(folder, "fp8.mp4"), { width: 96, height: 64, frames: 9, fps: 16 });
    const { plan } = JSON.parse(await readFile(join(folder, "fp8.json"), "utf8"));
    expect([plan.linear, plan.attention.dtype, plan.ring.dtype]).toEqual([{ dtype: "e4m3" }, "e4m3", "e4m3"]);
    const latent = await readTensor(join(folder, "fp8.safetensors"), "latent.0");
    const error = relativeL2(latent, await readTensor(caseFile, "sample.latent.0"));
    // The first step, which is a small one, of a forward that is off by 3 %.
    expect(error).toBeLessThan(0.02);
    expect(error).toBeGreaterThan(1e-4);
  });

  /** The latent after two steps, float32. */
  async function latentOf(...args: string[]): Promise<Float32Array> {
    const { exitCode, stderr } = await tiny(
      ...["--size", "64*64", "--frames", "1", "--dtype", "fp32", "--steps", "2", "--dump", "seed.safetensors"],
      ...["--out", "seed.mp4", "--overwrite", ...args],
    );
    expect(exitCode, stderr).toBe(0);
    return readTensor(join(folder, "seed.safetensors"), "latent.1");
  }

  it("gives the same video for the same seed, another for another, whatever the layout", async () => {
    const first = await latentOf("--seed", "7");
    expect(relativeL2(await latentOf("--seed", "7", "--cp", "3"), first)).toBeLessThan(1e-5);
    expect(relativeL2(await latentOf("--seed", "8"), first)).toBeGreaterThan(0.1);
  });

  it("gives the same video for the same of PyTorch's noise, which the host of every rank draws", async () => {
    const noise = ["--noise", "torch-cuda", "--seed", "5317905679503427392"];
    const first = await latentOf(...noise);
    expect(relativeL2(await latentOf(...noise, "--cp", "2"), first)).toBeLessThan(1e-5);
  });

  it("computes the prompt alone where guidance is off, and samples with the other solver", async () => {
    const { exitCode, stderr, stdout } = await tiny(
      ...["--guide-scale", "1", "--solver", "dpm++", "--steps", "3", "--json", "--out", "unguided.mp4"],
      ...["--seed", "-1", "--noise", "torch-cpu"],
    );
    expect(exitCode, stderr).toBe(0);
    // All digits of the seed, so that the video can be made again.
    const [, drawn] = /--seed -1 drew the seed (\d+)\./.exec(stderr) ?? [];
    expect(stderr).toContain(`seed ${drawn}, noise: torch-cpu`);
    expect([String(JSON.parse(stdout).seed), JSON.parse(stdout).noise]).toEqual([drawn, "torch-cpu"]);
    expect(JSON.parse(stdout).ranks[0].forwardsMs.length).toBe(3);
    expect(JSON.parse(stdout).sampling).toEqual({ solver: "dpm++", steps: 3, shift: 3, guideScale: 1 });
  });

  it("leaves the first and the last steps in bf16 under --fp8", async () => {
    const latents = async (...args: string[]) => {
      // Under cp, attention in either precision uses one ring's peer memory.
      const mesh = ["--nproc", "2", "--cfg", "1", "--cp", "2"];
      const size = ["--size", "64*64", "--frames", "1", "--steps", "3"];
      const run = [...args, ...mesh, ...size, "--dump", "fp8.safetensors", "--out", "fp8.mp4", "--overwrite"];
      const { exitCode, stderr } = await tiny(...run);
      expect(exitCode, stderr).toBe(0);
      const read = (step: number) => readTensor(join(folder, "fp8.safetensors"), `latent.${step}`);
      return [await read(0), await read(1)];
    };
    const [mixed, later] = await latents("--fp8", "--bf16-steps", "1");
    const [bf16, laterBf16] = await latents();
    const [fp8] = await latents("--fp8");
    expect(mixed).toEqual(bf16);
    expect(fp8).not.toEqual(bf16);
    expect(later).not.toEqual(laterBf16);
  });

  it("loads the text encoder first and alone where memory is short, for the same video in less memory", async () => {
    const video = async (...args: string[]) => {
      const run = [
        "--steps",
        "2",
        "--dump",
        "memory.safetensors",
        "--out",
        "memory.mp4",
        "--overwrite",
        "--json",
        ...args,
      ];
      const { exitCode, stdout, stderr } = await tiny(...run);
      expect(exitCode, stderr).toBe(0);
      const { ranks, peakMemoryBytes } = memorySchema.parse(JSON.parse(stdout));
      const tensor = await readTensor(join(folder, "memory.safetensors"), "video");
      return { video: tensor, encoderFirst: ranks.map(({ memory }) => memory.encoderFirst), peakMemoryBytes };
    };
    const enough = await video("--nproc", "2", "--cfg", "1", "--cp", "2");
    const short = await video("--nproc", "2", "--cfg", "1", "--cp", "2", "--memory", "0.1");
    expect([enough.encoderFirst, short.encoderFirst]).toEqual([
      [false, false],
      [true, true],
    ]);
    expect(short.video).toEqual(enough.video);
    expect(short.peakMemoryBytes).toBeLessThan(0.95 * enough.peakMemoryBytes);
  });

  it("runs random weights without any file, and says so; a video that is there stays", async () => {
    await writeFile(join(folder, "random.mp4"), "the first");
    const { exitCode, stderr, stdout } = await tiny(
      ...["--weights", "random", "--size", "32*32", "--frames", "1", "--steps", "1", "--out", "random.mp4"],
      "--no-metadata",
    );
    expect(exitCode, stderr).toBe(0);
    expect(stdout).toContain("weights: random weights of seed 0;");
    expect(stdout).toContain("random-2.mp4: 1 frame of 32 × 32");
    expect(await readFile(join(folder, "random.mp4"), "utf8")).toBe("the first");
    await expectMp4(join(folder, "random-2.mp4"), { width: 32, height: 32, frames: 1, fps: 16 });
    expect(String(await readFile(join(folder, "random-2.mp4")))).not.toContain("A red car");
  });

  it("warns of a prompt that is too long, with its number of tokens", async () => {
    const long = ["generate", "--model", "tiny", "--steps", "1", "--out", "long.mp4", "--prompt", "x ".repeat(700)];
    const { exitCode, stderr } = await ditrun(...long);
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toMatch(/The prompt has \d{3,4} tokens; the model takes 512, so the last \d+ are cut off\./);
  });
});

describe("ditrun wan profile", () => {
  it.for([{ mesh: [] }, { mesh: ["--nproc", "4", "--cp", "2", "--tp", "2"] }])(
    "accounts for every operation of the forward: $mesh",
    async ({ mesh }) => {
      const { exitCode, stdout, stderr } = await ditrun(
        ...["profile", "--model", "tiny", "--size", "96*64", "--frames", "9", "--iterations", "1", "--json", ...mesh],
      );
      expect(exitCode, stderr).toBe(0);
      expect(stderr).toContain("forwards/s");
      const { ranks, tflops, latencyMs, phases } = documentSchemas.profile.parse(JSON.parse(stdout));
      const flops = ranks.flatMap(({ kernels }) => kernels.map((kernel) => kernel.flops)).reduce((a, b) => a + b);
      // Every rank computes the time step's path, which is not in the model's number, and every tp rank the patches and the head.
      const ratio = flops / (tflops * latencyMs.median * 1e9);
      expect(ratio).toBeGreaterThan(1);
      expect(ratio).toBeLessThan(1.03);
      expect(phases.attention).toBeGreaterThan(0);
    },
  );
});

describe("ditrun wan generate ends with one sentence", () => {
  const line = (stderr: string) => stderr.split("\n").findLast((text) => text.startsWith("ditrun: ")) ?? "";

  it.for([
    ["one worker", "single"],
    ["cfg2×cp2", "cfg2-cp2"],
  ] as const)("when sampling meets a value that is not finite, with its step and layer: %s", async ([, mesh]) => {
    // The last token's patch, which the patch embedding makes infinite: under cp 2 only the second rank sees it before the first attention.
    const noise = await readTensor(caseFile, "noise");
    const weight = await readTensor(join(original, transformerFile), "patch_embedding.weight");
    for (let channel = 0; channel < 16; channel++) {
      for (let pixel = 0; pixel < 4; pixel++) {
        const at = ((channel * 3 + 2) * 8 + 6 + Math.floor(pixel / 2)) * 12 + 10 + (pixel % 2);
        noise[at] = 3e38 * Math.sign(weight[channel * 4 + pixel] ?? Number.NaN);
      }
    }
    const data = new Uint8Array(noise.buffer, noise.byteOffset, noise.byteLength);
    const file = `${mesh}.safetensors`;
    await writeSafetensors(join(folder, file), { large: { dtype: "F32", shape: [16, 3, 8, 12], data } });
    const degrees = mesh === "single" ? [] : ["--cfg", "2", "--cp", "2"];
    const { exitCode, stderr } = await golden(
      original,
      "--init-noise",
      `${file}:large`,
      "--out",
      `${mesh}.mp4`,
      ...degrees,
    );
    expect(exitCode).toBe(1);
    expect(line(stderr)).toMatch(/At step 1 of 6 the guided prediction has \d+ values that are not finite;/);
    const rank = mesh === "single" ? 0 : 1;
    expect(line(stderr)).toContain(`patch_embedding in the forward of the prompt on rank ${rank}`);
    expect((await readdir(folder)).filter((name) => name.startsWith(`${mesh}.mp4`))).toEqual([]);
  });

  it("when decoding meets a NaN on two workers, and leaves no part of a video", async () => {
    const { diffusers } = goldenCheckpoints;
    const broken = join(folder, "nan-vae");
    await mkdir(join(broken, "vae"), { recursive: true });
    for (const entry of await readdir(diffusers)) {
      if (entry !== "vae") await symlink(join(diffusers, entry), join(broken, entry));
    }
    const weights = join("vae", transformerFile);
    await copyFile(join(diffusers, "vae", "config.json"), join(broken, "vae", "config.json"));
    await copyChanged(join(diffusers, weights), join(broken, weights), "decoder.conv_out.bias", spoiled);
    const { exitCode, stderr } = await golden(broken, "--cp", "2", "--out", "nan-vae.mp4");
    expect(exitCode).toBe(1);
    expect(line(stderr)).toContain(
      "Decoding gave values that are not finite, first in frame 1 of 9 (latent frame 1 of 3)",
    );
    expect((await readdir(folder)).filter((name) => name.startsWith("nan-vae.mp4"))).toEqual([]);
  });

  it("when a weight is infinite, naming its layer", async () => {
    const broken = await checkpointWhere("infinite", "blocks.1.ffn.2.bias", (stored) => {
      const data = stored.data.slice();
      new DataView(data.buffer).setFloat32(0, Number.POSITIVE_INFINITY, true);
      return { ...stored, data };
    });
    const { exitCode, stderr } = await golden(broken, "--dtype", "fp32", "--tp", "2");
    expect(exitCode).toBe(1);
    expect(line(stderr)).toContain("the first layer to have any is block.1.ffn in the forward of the prompt on rank 0");
  });

  it("when a tensor has another shape, with both", async () => {
    const broken = await checkpointWhere("mismatched", "blocks.2.ffn.0.bias", (stored) => ({
      ...stored,
      shape: [160],
      data: stored.data.slice(0, 640),
    }));
    const { exitCode, stderr } = await golden(broken);
    expect(exitCode).toBe(2);
    expect(line(stderr)).toMatch(
      /mismatched.*blocks\.2\.ffn\.0\.bias.*should have the shape \[320\], but it has \[160\]/,
    );
  });

  it("when no model fits in memory, with what it needs", async () => {
    const { exitCode, stderr } = await tiny("--memory", "0.001", "--out", "no.mp4");
    expect(exitCode).toBe(3);
    expect(stderr).toMatch(/Rank 0 needs \d+\.\d MiB of device memory even with one model at a time, but has 1\.0 MiB/);
  });

  it("when a file is cut off or missing, naming it", async () => {
    const broken = await checkpointWith("truncated");
    const missing = await golden(broken);
    expect([missing.exitCode, line(missing.stderr)]).toEqual([
      2,
      expect.stringMatching(/truncated .*original layout, but .*is missing/),
    ]);
    await copyFile(join(original, transformerFile), join(broken, transformerFile));
    await truncate(join(broken, transformerFile), 1_000_000);
    const truncated = await golden(broken);
    expect([truncated.exitCode, line(truncated.stderr)]).toEqual([
      2,
      expect.stringContaining(join(broken, transformerFile)),
    ]);
  });

  it("when what is dumped finds no room", async () => {
    // A limit on file sizes in the place of a full disk: the dump has 800 KB, the video less than 100 KB.
    const command = `ulimit -f 600; exec node ${resolve("bin/ditrun.js")} wan generate --device cpu --model tiny --prompt x --steps 2 --dump big.safetensors --out big.mp4`;
    const { exitCode, stderr } = await execa("bash", ["-c", command], { cwd: folder, reject: false, stdin: "ignore" });
    expect(exitCode).not.toBe(0);
    expect(line(stderr)).toMatch(/big\.safetensors \(\d+ bytes\): the file would be larger/);
    expect((await readdir(folder)).filter((name) => name.startsWith("big."))).toEqual([]);
  });

  it("when the dump is there already", async () => {
    await writeFile(join(folder, "old.safetensors"), "");
    const { exitCode, stderr } = await tiny("--dump", "old.safetensors");
    expect([exitCode, line(stderr)]).toEqual([
      2,
      "ditrun: --dump names old.safetensors, which is there already: choose another name, or add --overwrite.",
    ]);
  });
});
