import { copyFile, mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DitrunError, exitCodes } from "../../../src/failure.js";
import { loadCheckpointModel, loadWanModel } from "../../../src/models/load.js";
import { openPart } from "../../../src/models/wan/tensors/open-part.js";
import { builtKernels } from "../../../src/paths.js";
import { planSchema } from "../../../src/plan/schema.js";
import { type Job, jobSchema, type WanGenerateTask, type WanVaeTask } from "../../../src/protocol/job.js";
import { Context } from "../../../src/worker/comm/context.js";
import { WanVae } from "../../../src/worker/models/wan/vae/vae.js";
import { copy, fillZero } from "../../../src/worker/ops/copy.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { runTask } from "../../../src/worker/tasks/index.js";
import { profileForward } from "../../../src/worker/tasks/profile.js";
import { copyChanged, type Stored, spoiled } from "../../checkpoints.js";
import { readTensor } from "../../compare.js";
import { caseFile, checkpointOf, soloStore, weightsOf } from "./wan/golden.js";

const kernels = builtKernels("cpu");
const dit = "test/golden/data/dit";
const plan = planSchema.parse({ dtype: "fp32" });
const size = { frames: 3, height: 8, width: 12 };
const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const jobOf = (task: unknown): Job => jobSchema.parse({ id: "test", device: "cpu", kernels, timeoutSeconds: 30, task });

/** Runs a task as the only worker, in this process. @returns how it failed, and the names of all that it sent. */
async function failureOf(task: unknown): Promise<{ message: string; exitCode: number; sent: string[] }> {
  const job = jobOf(task);
  const sent: string[] = [];
  const store = { ...soloStore(), emit: async (name: string) => void sent.push(name) };
  try {
    await runTask(job, store);
  } catch (error) {
    if (error instanceof DitrunError) return { message: error.message, exitCode: error.exitCode, sent };
    throw error;
  }
  throw new Error("The task was done.");
}

describe("the DiT stops at an output that is not finite", () => {
  const task = async (name: string, tensor: string) => {
    const directory = join(folder, name);
    await mkdir(directory);
    await copyFile(join(dit, "config.json"), join(directory, "config.json"));
    await copyChanged(join(dit, "model.safetensors"), join(directory, "model.safetensors"), tensor, spoiled);
    return { model: await loadCheckpointModel(dit), plan, weights: { from: "directory", directory }, seed: 0 };
  };

  it("in a forward, which then leaves no file", async () => {
    const output = join(folder, "output.safetensors");
    const broken = await task("forward", "head.bias");
    const { message, exitCode } = await failureOf({ kind: "forward", ...broken, output });
    // The last of a patch's 256 values, on each of 256 tokens: the corner of the last channel.
    expect(message).toContain("The output of checkpoint has 256 values that are not finite, the first at index 50055:");
    expect(exitCode).toBe(exitCodes.mismatch);
    expect(await readdir(folder)).not.toContain("output.safetensors");
  });

  it("in a profile", async () => {
    const timing = { warmup: 0, iterations: 1, trace: false };
    const broken = await task("profile", "blocks.1.mlp.2.bias");
    const { message, exitCode } = await failureOf({ kind: "profile", ...broken, ...timing });
    expect(message).toMatch(/The output of checkpoint has 65536 values that are not finite, the first at index 0:/);
    expect(exitCode).toBe(exitCodes.mismatch);
  });

  it("in what replays give, though the first forward was finite", async () => {
    const model = await loadCheckpointModel(dit);
    const timing = { warmup: 0, iterations: 1, trace: false };
    const job = jobOf({ kind: "profile", model, plan, weights: { from: "random", seed: 0 }, seed: 0, ...timing });
    const device = Device.open(kernels, 0);
    const context = await Context.create(device, soloStore(), plan);
    const output = device.allocatePersistent("fp32", [4]);
    const source = device.allocatePersistent("fp32", [4]);
    await device.upload(source, bytesOf(Float32Array.of(1, 2, Number.NEGATIVE_INFINITY, 4)));
    let forwards = 0;
    const subject = {
      ...{ output, flops: 0, takeRingWaits: async () => [] },
      forward: () => {
        if (forwards++ > 0) copy(device, output, source, 16);
        else fillZero(device, output);
      },
    };
    if (job.task.kind !== "profile") throw new Error("not a profile");
    await expect(profileForward(context, subject, job.task, soloStore())).rejects.toThrow(
      "has 1 value that is not finite, the first at index 2:",
    );
    await context.close();
    device.close();
  });

  it("at inputs of a file, with the tensor", async () => {
    for (const tensor of ["img", "t"]) {
      const inputs = join(folder, `inputs-${tensor}.safetensors`);
      await copyChanged(join(dit, "case.safetensors"), inputs, tensor, spoiled);
      const model = await loadCheckpointModel(dit);
      const weights = { from: "directory", directory: dit };
      const task = { kind: "forward", model, plan, weights, seed: 0, inputs, output: join(folder, "none.safetensors") };
      const { message, exitCode } = await failureOf(task);
      expect(message).toContain(`${inputs}: tensor ${tensor} has 1 value that is not finite, the first at index`);
      expect(exitCode).toBe(exitCodes.usage);
    }
  });
});

describe("ditrun wan generate stops", () => {
  /** The golden run with some of its weights in another file. */
  async function generate(
    weights: Partial<Record<"textEncoder" | "transformer" | "vae", string>>,
    more: Partial<WanGenerateTask> = {},
  ) {
    return failureOf({
      ...{ kind: "wan-generate", model: await loadWanModel(await checkpointOf("diffusers")), plan, size, seed: 1 },
      weights: { ...(await weightsOf("diffusers")), ...weights },
      ids: { prompt: [5, 6, 1], negative: [7, 1] },
      sampling: { solver: "unipc", steps: 1, shift: 5, guideScale: 5 },
      ...more,
    });
  }

  it("at a text that is not finite", async () => {
    const { textEncoder } = await checkpointOf("diffusers");
    const file = join(folder, "t5.safetensors");
    await copyChanged(textEncoder.weights, file, "encoder.final_layer_norm.weight", spoiled);
    const { message, exitCode, sent } = await generate({ textEncoder: file });
    expect(message).toContain("The text encoder's output for the prompt has 3 values that are not finite");
    expect([exitCode, sent.includes("frame")]).toEqual([exitCodes.mismatch, false]);
  });

  it("at noise that is not finite, before anything is loaded", async () => {
    const file = join(folder, "noise.safetensors");
    await copyChanged(caseFile, file, "noise", (stored) => spoiled(stored, Number.POSITIVE_INFINITY));
    const { message, exitCode, sent } = await generate({}, { noise: { file, tensor: "noise" } });
    expect(message).toContain(`${file}: tensor noise has 1 value that is not finite, the first at index 4607`);
    expect([exitCode, sent]).toEqual([exitCodes.usage, []]);
  });

  it("at a latent that only the last update made infinite", async () => {
    // The transformer does not see the noise and predicts -3e38 everywhere; noise - prediction is too large for a float32.
    const all = (value: number) => (stored: Stored) => {
      const data = bytesOf(new Float32Array(stored.data.length / 4).fill(value));
      return { ...stored, data };
    };
    const { transformer } = await checkpointOf("diffusers");
    const [blind, large, noise] = ["blind", "large", "noise"].map((name) => join(folder, `${name}-3e38.safetensors`));
    if (!blind || !large || !noise) throw new Error("no names");
    await copyChanged(transformer.weights, blind, "patch_embedding.weight", all(0));
    await copyChanged(blind, large, "proj_out.bias", all(-3e38));
    await copyChanged(caseFile, noise, "noise", all(3e38));
    const { message, exitCode, sent } = await generate(
      { transformer: large },
      {
        ...{ noise: { file: noise, tensor: "noise" } },
        sampling: { solver: "unipc", steps: 1, shift: 5, guideScale: 1 },
      },
    );
    expect(message).toMatch(/^The latent after step 1 of 1 has 4608 values that are not finite/);
    expect([exitCode, sent.includes("frame")]).toEqual([exitCodes.mismatch, false]);
  });

  it.each([["pixels of 8 bits"], ["float32, for a dump"]])("at pixels that are not finite: %s", async (which) => {
    const { vae } = await checkpointOf("diffusers");
    const file = join(folder, "vae.safetensors");
    await copyChanged(vae.weights, file, "decoder.conv_out.bias", spoiled);
    const dump = which.includes("dump") ? { dump: join(folder, "dump.safetensors") } : {};
    const { message, exitCode, sent } = await generate({ vae: file }, dump);
    expect(message).toBe(
      "Decoding gave values that are not finite, first in frame 1 of 9 (latent frame 1 of 3): check the weights of the VAE.",
    );
    expect([exitCode, sent.includes("frame")]).toEqual([exitCodes.mismatch, false]);
    expect(await readdir(folder)).not.toContain("dump.safetensors");
  });
});

describe("Wan's VAE stops", () => {
  const vaeTask = (task: Partial<WanVaeTask>) => ({
    ...{ kind: "wan-vae", plan, clamp: false, iterations: 1 },
    ...task,
  });

  it("at a latent frame that is not finite, in a graph that is replayed, and goes on with the next video", async () => {
    const device = Device.open(kernels, 0);
    const context = await Context.create(device, soloStore(), plan);
    const file = await openPart((await checkpointOf("diffusers")).vae.weights, "VAE");
    const vae = await WanVae.load(context, file, { decoder: true });
    const latentSize = { frames: 5, height: 2, width: 3 };
    await context.prepare(() => vae.measureDecode(latentSize, "u8"));
    const latent = device.allocatePersistent("fp32", [16, 5, 2, 3]);
    const values = Float32Array.from({ length: 16 * 5 * 6 }, (_, index) => Math.sin(index));
    const decode = async () => {
      const firstFrames: number[] = [];
      try {
        for await (const { firstFrame } of vae.decodeToBytes(latent)) firstFrames.push(firstFrame);
      } catch (error) {
        if (!(error instanceof DitrunError)) throw error;
        return { firstFrames, message: error.message };
      }
      return { firstFrames, message: "" };
    };
    for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY]) {
      const spoiledValues = values.slice();
      spoiledValues[5 * 6 + 3 * 6 + 4] = bad; // channel 1, frame 3
      await device.upload(latent, bytesOf(spoiledValues));
      const { firstFrames, message } = await decode();
      expect(firstFrames).toEqual([0, 1, 5]);
      expect(message).toContain("first in frames 10 to 13 of 17 (latent frame 4 of 5)");
    }
    await device.synchronize();
    await device.upload(latent, bytesOf(values));
    expect(await decode()).toEqual({ firstFrames: [0, 1, 5, 9, 13], message: "" });
    await device.synchronize();
    vae.close();
    await file.close();
    await context.close();
    device.close();
  });

  const encoding = (weights: string, file: string): Partial<WanVaeTask> => ({
    model: { name: "vae", weights: { from: "file", file: weights } },
    direction: "encode",
    input: { from: "file", file, tensor: "vae.encode.input" },
  });

  it("when it encodes to values that are not finite, also where no file is asked for", async () => {
    const { vae } = await checkpointOf("diffusers");
    const file = join(folder, "encoder.safetensors");
    await copyChanged(vae.weights, file, "encoder.conv_in.bias", spoiled);
    const { message, exitCode } = await failureOf(vaeTask(encoding(file, caseFile)));
    expect(message).toContain("Encoding gave values that are not finite, first in frame 1 of 9 (latent frame 1 of 3)");
    expect(exitCode).toBe(exitCodes.mismatch);
  });

  it("at an input that is not finite", async () => {
    const file = join(folder, "video.safetensors");
    const input = await readTensor(caseFile, "vae.encode.input");
    await copyChanged(caseFile, file, "vae.encode.input", spoiled);
    const { message, exitCode } = await failureOf(
      vaeTask(encoding((await checkpointOf("diffusers")).vae.weights, file)),
    );
    expect(message).toContain(
      `tensor vae.encode.input has 1 value that is not finite, the first at index ${input.length - 1}`,
    );
    expect(exitCode).toBe(exitCodes.usage);
  });
});
