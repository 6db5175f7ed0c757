import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toFloat32 } from "../../../../src/formats/numbers.js";
import { builtKernels } from "../../../../src/paths.js";
import { planSampling } from "../../../../src/sampling/scheduler.js";
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
});
