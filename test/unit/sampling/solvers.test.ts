import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toFloat32 } from "../../../src/formats/numbers.js";
import { loadWanModel } from "../../../src/models/load.js";
import { builtKernels } from "../../../src/paths.js";
import { planSchema } from "../../../src/plan/schema.js";
import type { WanGenerateTask } from "../../../src/protocol/job.js";
import { planSampling, solverNames } from "../../../src/sampling/scheduler.js";
import { Context } from "../../../src/worker/comm/context.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { runTask } from "../../../src/worker/tasks/index.js";
import { loadTextEncoder, loadTransformer } from "../../../src/worker/tasks/wan-session.js";
import { fillRandom } from "../../../src/worker/weights/source.js";
import { readTensor, relativeL2 } from "../../compare.js";
import { caseFile, checkpointOf, readIds, soloStore, weightsOf } from "../worker/wan/golden.js";
import { Sampler } from "../worker/wan/host-sampler.js";

const size = { frames: 3, height: 8, width: 12 };
const steps = 3;
const shift = 5;

let folder = "";
let task: WanGenerateTask;
let velocity: Awaited<ReturnType<typeof openTransformer>>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ditrun-test-"));
  const ids = { prompt: [...(await readIds("prompt"))], negative: [1] };
  task = {
    ...{ kind: "wan-generate", model: await loadWanModel(await checkpointOf("original")), ids, size, seed: 0 },
    ...{ plan: planSchema.parse({ dtype: "fp32" }), weights: await weightsOf("original") },
    sampling: { solver: "unipc", steps, shift, guideScale: 1 },
    noise: { file: caseFile, tensor: "noise" },
  };
  velocity = await openTransformer();
});
afterAll(async () => {
  await velocity.close();
  await rm(folder, { recursive: true });
});

const jobOf = (job: WanGenerateTask) =>
  ({ id: "test", device: "cpu", kernels: builtKernels("cpu"), timeoutSeconds: 60, task: job }) as const;

/** The transformer with the golden prompt, in this process. */
async function openTransformer() {
  const device = Device.open(builtKernels("cpu"), 0);
  const { model, weights, plan, ids } = task;
  const context = await Context.create(device, soloStore(), plan);
  const encoder = await loadTextEncoder(context, model, weights);
  const transformer = await loadTransformer(context, { model, weights }, encoder.model.width, size);
  const latent = device.allocatePersistent("fp32", [16, size.frames, size.height, size.width]);
  const output = device.allocatePersistent("fp32", latent.shape);
  await context.prepare(() => {
    encoder.forward();
    transformer.embedText("cond");
    transformer.forward("cond", latent, output);
  });
  await transformer.setText("cond", await encoder.encode(ids.prompt));
  return {
    async at(sample: Float32Array, timestep: number): Promise<Float32Array> {
      await device.upload(latent, new Uint8Array(sample.buffer, sample.byteOffset, sample.byteLength));
      await transformer.setTime(timestep);
      transformer.forward("cond", latent, output);
      await device.synchronize();
      return toFloat32("F32", await device.download(output));
    },
    /** What a step that renoises draws. */
    async noise(step: number): Promise<Float32Array> {
      const init = { kind: "normal", std: 1 } as const;
      fillRandom(device, { out: output, seed: task.seed, name: `noise.${step + 1}`, fullColumns: size.width, init });
      return toFloat32("F32", await device.download(output));
    },
    async close() {
      await context.close();
      device.close();
    },
  };
}

describe.each(solverNames)("a generation with %s", (solver) => {
  it("takes this solver's steps at this solver's times", async () => {
    const dump = join(folder, `${solver}.safetensors`);
    const job = jobOf({ ...task, sampling: { ...task.sampling, solver }, dump });
    await runTask(job, soloStore());

    const plan = planSampling(solver, steps, shift);
    const sampler = new Sampler(plan, await readTensor(caseFile, "noise"));
    for (const [step, timestep] of plan.timesteps.entries()) {
      sampler.step(await velocity.at(sampler.sample, timestep), await velocity.noise(step));
      expect(relativeL2(await readTensor(dump, `latent.${step}`), sampler.sample), `step ${step}`).toBeLessThan(1e-5);
    }
  });
});
