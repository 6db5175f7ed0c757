import { describe, expect, test } from "vitest";
import { toFloat32 } from "../../../src/formats/numbers.js";
import { openSafetensors } from "../../../src/formats/safetensors.js";
import { planSampling, type SolverName } from "../../../src/sampling/scheduler.js";
import { relativeL2 } from "../../compare.js";
import { Sampler } from "../worker/wan/host-sampler.js";

const golden = new URL("../../golden/data/", import.meta.url).pathname;

async function recorded(name: string): Promise<(part: string) => Promise<Float32Array>> {
  return async (part) => {
    const file = await openSafetensors(`${golden}schedulers.safetensors`);
    const values = toFloat32(file.info(`${name}.${part}`).dtype, await file.read(`${name}.${part}`));
    await file.close();
    return values;
  };
}

const settings: [SolverName, number, number][] = (["unipc", "dpm++"] as const).flatMap((solver) =>
  (
    [
      [4, 3],
      [10, 5],
      [20, 8],
      [50, 5],
    ] as const
  ).map(([steps, shift]): [SolverName, number, number] => [solver, steps, shift]),
);

describe.each(settings)("%s, %i steps, shift %d", (solver, steps, shift) => {
  const plan = planSampling(solver, steps, shift);

  test("sigmas and timesteps equal the recorded ones", async () => {
    const read = await recorded(`${solver}.${steps}.${shift.toFixed(1)}`);
    expect(relativeL2(plan.sigmas, await read("sigmas"))).toBeLessThanOrEqual(1e-7);
    expect(plan.timesteps).toEqual([...(await read("timesteps"))]);
  });

  test("every sample is within 1e-5 of the recorded one", async () => {
    const read = await recorded(`${solver}.${steps}.${shift.toFixed(1)}`);
    const [noise, outputs, samples] = [await read("noise"), await read("model_output"), await read("sample")];
    const sampler = new Sampler(plan, noise);
    expect(outputs.length).toBe(steps * noise.length);
    let worst = 0;
    for (let i = 0; i < steps; i++) {
      const [begin, end] = [i * noise.length, (i + 1) * noise.length];
      sampler.step(outputs.subarray(begin, end));
      worst = Math.max(worst, relativeL2(sampler.sample, samples.subarray(begin, end)));
    }
    expect(worst).toBeLessThanOrEqual(1e-5);
    expect(() => sampler.step(noise)).toThrow(`All ${steps} sampling steps are done`);
  });
});

test("a constant velocity is followed exactly by both solvers, down to the data", () => {
  // x(σ) = data + σ·velocity: from noise = data + velocity at σ ≈ 1 the last sample is the data plus the first step's rest.
  for (const solver of ["unipc", "dpm++"] as const)
    for (const steps of [1, 2, 3, 7]) {
      const plan = planSampling(solver, steps, 5);
      const [data, velocity] = [0.75, -2];
      const sampler = new Sampler(plan, Float32Array.of(data + (plan.sigmas[0] ?? 0) * velocity));
      for (let i = 0; i < steps; i++) {
        const [value] = sampler.step(Float32Array.of(velocity));
        expect(value).toBeCloseTo(data + (plan.sigmas[i + 1] ?? Number.NaN) * velocity, 5);
      }
    }
});

test("every coefficient is a finite number and each step uses only tensors that exist by then", () => {
  for (const [solver, steps, shift] of settings) {
    const plan = planSampling(solver, steps, shift);
    expect(plan.steps.length).toBe(steps);
    for (const [i, { x0, corrected, next }] of plan.steps.entries())
      for (const { coefficient, tensor } of [...x0, ...(corrected ?? []), ...next]) {
        expect(Number.isFinite(coefficient)).toBe(true);
        if (i < 1) expect(["sample", "velocity"]).toContain(tensor);
        if (i < 2) expect(tensor).not.toBe("olderX0");
      }
  }
});

test("impossible settings are sentences", () => {
  expect(() => planSampling("unipc", 0, 5)).toThrow(/from 1 to 1000, not 0/);
  expect(() => planSampling("dpm++", 2.5, 5)).toThrow(/not 2.5/);
  expect(() => planSampling("dpm++", 4, 0)).toThrow(/shift must be a positive number .* not 0/);
  const sampler = new Sampler(planSampling("unipc", 4, 5), new Float32Array(3));
  expect(() => sampler.step(new Float32Array(2))).toThrow(/has 2 values, but the sample has 3/);
});
