import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toFloat32 } from "../../../../src/formats/numbers.js";
import { builtKernels } from "../../../../src/paths.js";
import { planSampling, samplingPlan } from "../../../../src/sampling/scheduler.js";
import { DeviceSampler } from "../../../../src/worker/models/wan/device-sampler.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { readTensor, relativeL2 } from "../../../compare.js";

const golden = "test/golden/data/schedulers.safetensors";
const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

describe("the sampler on a device", () => {
  let device: Device;
  beforeAll(() => {
    device = Device.open(builtKernels("cpu"), 0);
  });
  afterAll(() => device.close());

  it.for([
    ["unipc", 4, 3],
    ["unipc", 20, 8],
    ["dpm++", 4, 3],
    ["dpm++", 50, 5],
  ] as const)("keeps to the recorded samples: %s, %d steps, shift %d", async ([solver, steps, shift]) => {
    const key = `${solver}.${steps}.${shift.toFixed(1)}`;
    const noise = await readTensor(golden, `${key}.noise`);
    const outputs = await readTensor(golden, `${key}.model_output`);
    const samples = await readTensor(golden, `${key}.sample`);
    const sampler = new DeviceSampler(device, planSampling(solver, steps, shift), [noise.length]);
    const velocity = device.allocatePersistent("fp32", [noise.length]);
    await device.upload(sampler.sample, bytesOf(noise));
    for (let step = 0; step < steps; step++) {
      const [begin, end] = [step * noise.length, (step + 1) * noise.length];
      await device.upload(velocity, bytesOf(outputs.subarray(begin, end)));
      sampler.step(step, velocity);
      const sample = toFloat32("F32", await device.download(sampler.sample));
      expect(relativeL2(sample, samples.subarray(begin, end)), `step ${step}`).toBeLessThan(1e-5);
    }
    expect(() => sampler.step(steps, velocity)).toThrow(`There is no step ${steps} among ${steps}.`);
  });

  it("renoises with noise of seed and step: standard normal, and the same whatever was drawn before", async () => {
    const count = 4096;
    const sampling = { solver: "renoise", steps: 3, shift: 1, sigmas: [1, 0.75, 0.5] } as const;
    const plan = samplingPlan(sampling);
    const velocity = device.allocatePersistent("fp32", [count]);
    const run = async (seed: number) => {
      const sampler = new DeviceSampler(device, plan, [count]);
      sampler.begin(plan, seed);
      const drawn: Float32Array[] = [];
      for (const [index, next] of [0.75, 0.5].entries()) {
        // The prediction is zero: what is left is σ' · noise.
        const sigma = sampling.sigmas[index] ?? NaN;
        device.clear(sampler.sample);
        await device.upload(velocity, bytesOf(new Float32Array(count)));
        sampler.step(index, velocity);
        expect(sigma).toBeGreaterThan(next);
        drawn.push(toFloat32("F32", await device.download(sampler.sample)).map((x) => x / next));
      }
      return drawn;
    };
    const [first, second] = await run(7);
    if (!first || !second) throw new Error("Two steps draw twice.");
    for (const noise of [first, second]) {
      const mean = noise.reduce((sum, x) => sum + x, 0) / count;
      const variance = noise.reduce((sum, x) => sum + x * x, 0) / count;
      expect(Math.abs(mean)).toBeLessThan(0.06);
      expect(Math.abs(variance - 1)).toBeLessThan(0.1);
    }
    expect(relativeL2(first, second)).toBeGreaterThan(1);
    expect(await run(7)).toEqual([first, second]);
    expect(relativeL2((await run(8))[0] ?? [], first)).toBeGreaterThan(1);
  });

  it.for(["unipc", "dpm++", "euler"] as const)(
    "shows what a step expects, and goes on as if nobody looked: %s",
    async (solver) => {
      // [channels, frames, height, width], the last step of which leaves its expectation itself.
      const shape = [2, 3, 1, 2];
      const run = async (look: boolean) => {
        const sampler = new DeviceSampler(device, planSampling(solver, 4, 3), shape);
        const velocity = device.allocatePersistent("fp32", shape);
        await device.upload(sampler.sample, bytesOf(Float32Array.from({ length: 12 }, (_, i) => i - 5)));
        let seen: Float32Array = new Float32Array();
        for (let step = 0; step < 4; step++) {
          await device.upload(velocity, bytesOf(Float32Array.from({ length: 12 }, (_, i) => Math.sin(i * (step + 1)))));
          sampler.step(step, velocity);
          if (look) seen = toFloat32("F32", await device.download(sampler.denoised([2, 0])));
        }
        return { seen, last: toFloat32("F32", await device.download(sampler.sample)) };
      };
      const { seen, last } = await run(true);
      expect(last).toEqual((await run(false)).last);
      const frame = (index: number) =>
        [0, 1].flatMap((channel) => [...last.slice((channel * 3 + index) * 2).slice(0, 2)]);
      expect(relativeL2(seen, Float32Array.from([...frame(2), ...frame(0)]))).toBeLessThan(1e-5);
    },
  );

  it("scales the initial noise", async () => {
    const sampler = new DeviceSampler(device, planSampling("euler", 2, 1), [3]);
    await device.upload(sampler.sample, bytesOf(Float32Array.of(1, -2, 4)));
    sampler.scale(0.5);
    expect(toFloat32("F32", await device.download(sampler.sample))).toEqual(Float32Array.of(0.5, -1, 2));
  });
});
