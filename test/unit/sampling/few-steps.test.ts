import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { chooseSampling, type fewStepNames, presetOfFile } from "../../../src/models/wan/few-steps.js";
import { samplingPlan } from "../../../src/sampling/scheduler.js";
import { writeWithMetadata } from "../../lora.js";
import { Sampler } from "../worker/wan/host-sampler.js";

const near = (expected: readonly number[]) => expected.map((value) => expect.closeTo(value, 4));

it("Euler begins at pure noise, and its times are no whole numbers", () => {
  const { sigmas, timesteps } = samplingPlan({ solver: "euler", steps: 4, shift: 5 });
  expect([...sigmas]).toEqual(near([1, 0.9375, 0.83333, 0.625, 0]));
  expect(timesteps).toEqual(near([1000, 937.5, 833.3333, 625]));
});

it("noise levels are taken as they are given", () => {
  const given = [0.98765, 0.93378, 0.8529, 0.60898];
  for (const solver of ["euler", "renoise", "dpm++", "unipc"] as const) {
    const { sigmas, timesteps } = samplingPlan({ solver, steps: 4, shift: 5, sigmas: given });
    expect([...sigmas]).toEqual(near([...given, 0]));
    expect(timesteps).toEqual(given.map((sigma) => sigma * 1000));
  }
});

it.for([
  [[1, 0.5, 0.5], /number 2|number 3/],
  [[1.5, 0.5, 0.25], /number 1 is 1.5/],
  [[1, 0.5, 0], /number 3 is 0/],
  [[1, Number.NaN, 0.5], /number 2 is NaN/],
  [[1, 0.5], /2 noise levels make as many steps, not 3/],
] as const)("noise levels %s are refused", ([sigmas, sentence]) => {
  expect(() => samplingPlan({ solver: "euler", steps: 3, shift: 5, sigmas })).toThrow(sentence);
});

/** What a model that is given x at σ answers in these tests. */
const velocityOf = (x: number, sigma: number) => Math.sin(3 * x) + sigma;

it("Euler follows the velocity: x + (σ' − σ) v, in float64", () => {
  const sigmas = [1, 0.9, 0.6, 0.2];
  const sampler = new Sampler(samplingPlan({ solver: "euler", steps: 4, shift: 1, sigmas }), Float32Array.of(0.7));
  let x = 0.7;
  for (const [i, sigma] of sigmas.entries()) {
    const v = velocityOf(x, sigma);
    sampler.step(Float32Array.of(v));
    x += ((sigmas[i + 1] ?? 0) - sigma) * v;
    expect(sampler.sample[0]).toBeCloseTo(x, 6);
  }
});

it("renoising mixes the prediction with fresh noise: (1 − σ')(x − σ v) + σ' ε, in float64", () => {
  const sigmas = [1, 0.757, 0.522];
  const noises = [0.3, -1.1, 0.4];
  const sampler = new Sampler(samplingPlan({ solver: "renoise", steps: 3, shift: 1, sigmas }), Float32Array.of(-0.4));
  let x = -0.4;
  for (const [i, sigma] of sigmas.entries()) {
    const v = velocityOf(x, sigma);
    const next = sigmas[i + 1] ?? 0;
    sampler.step(Float32Array.of(v), Float32Array.of(noises[i] ?? NaN));
    x = (1 - next) * (x - sigma * v) + next * (noises[i] ?? NaN);
    expect(sampler.sample[0]).toBeCloseTo(x, 6);
  }
});

it("presets have the schedules of their papers' code, and one forward a step", () => {
  const sigmasOf = (preset: (typeof fewStepNames)[number]) => {
    const { sampling } = chooseSampling({ preset }, { steps: 50 }, []);
    expect(sampling.guideScale).toBe(1);
    return { sampling, sigmas: [...samplingPlan(sampling).sigmas] };
  };
  for (const preset of ["lightx2v-4step", "lightning-4step"] as const) {
    const { sampling, sigmas } = sigmasOf(preset);
    expect(sampling.solver).toBe("euler");
    expect(sigmas).toEqual(near([1, 0.9375, 0.8333, 0.625, 0]));
  }
  const causvid = sigmasOf("causvid-3step");
  expect(causvid.sampling.solver).toBe("renoise");
  expect(causvid.sigmas).toEqual(near([1, 0.756757, 0.521739, 0]));
  const rcm = sigmasOf("rcm-4step");
  expect(rcm.sampling).toMatchObject({ solver: "renoise", initialScale: expect.closeTo(80 / 81, 10) });
  expect(rcm.sigmas).toEqual(near([0.987654, 0.933783, 0.852898, 0.608978, 0]));
  const acc = sigmasOf("accvideo-10step");
  expect(acc.sampling.solver).toBe("euler");
  expect(acc.sigmas.slice(0, 3)).toEqual(near([1, 0.9779, 0.95151]));
  expect(acc.sigmas).toHaveLength(11);
});

it("a file's metadata decide where no name does: a LoRA that was renamed, or was merged into the file", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  const write = async (name: string, metadata: Record<string, string>) => {
    const file = join(folder, name);
    await writeWithMetadata(file, { w: { dtype: "F32", shape: [1], data: new Float32Array(1) } }, metadata);
    return file;
  };
  const renamed = await write("a.safetensors", { "modelspec.title": "Wan21_AccVid_T2V_14B_lora_rank32" });
  const merged = await write("b.safetensors", {
    loras: JSON.stringify([{ file: "Wan21_T2V_14B_lightx2v_cfg_step_distill.safetensors", strength: 1 }]),
  });
  const trained = await write("c.safetensors", { ss_sd_model_name: "Wan21_CausVid_T2V.safetensors" });
  const steps = (...files: string[]) => chooseSampling({}, { steps: 50 }, files);
  expect(steps(trained, renamed).sampling.steps).toBe(10);
  expect(steps(merged).sampling).toEqual({ solver: "euler", steps: 4, shift: 5, guideScale: 1 });
  expect(steps(merged).told).toContain(`${merged} is by its metadata a LightX2V distillation of 4 steps`);
  expect(steps(trained).sampling.steps).toBe(50);
  rmSync(folder, { recursive: true });
});

it("a file's name decides where nobody else does, and says so", () => {
  const file = "/loras/Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors";
  const { sampling, told } = chooseSampling({}, { steps: 50 }, ["/loras/style.safetensors", file]);
  expect(sampling).toEqual({ solver: "euler", steps: 4, shift: 5, guideScale: 1 });
  expect(told).toMatch(/^\/loras\/Wan21.* is by its name a LightX2V distillation of 4 steps/);
  // Options stay as they are given.
  const own = chooseSampling({ steps: 8, guideScale: 2, solver: "unipc" }, { steps: 50 }, [file]);
  expect(own.sampling).toEqual({ solver: "unipc", steps: 8, shift: 5, guideScale: 2 });
  expect(chooseSampling({ preset: "none" }, { steps: 50 }, [file])).toEqual({
    sampling: { solver: "unipc", steps: 50, shift: 5, guideScale: 5 },
  });
  expect(chooseSampling({}, { steps: 50 }, [])).toEqual({
    sampling: { solver: "unipc", steps: 50, shift: 5, guideScale: 5 },
  });
});

it.for([
  ["wan2.1_t2v_14b_scaled_fp8_e4m3_lightx2v_4step.safetensors", "lightx2v-4step"],
  ["wan2.1_t2v_14b_scaled_fp8_e4m3_lightx2v.safetensors", undefined],
  ["Wan2.2-Lightning/high_noise_model.safetensors", "lightning-4step"],
  ["Wan21_AccVid_T2V_14B_lora_rank32_fp16.safetensors", "accvideo-10step"],
  ["Wan21_CausVid_bidirect2_T2V_1_3B_lora_rank32.safetensors", "causvid-3step"],
  ["rCM_Wan2.1_T2V_1.3B_480p.pt", "rcm-4step"],
  ["Wan2.1-T2V-14B-StepDistill-CfgDistill/transformer/diffusion_pytorch_model.safetensors", "lightx2v-4step"],
  ["parchment-style.safetensors", undefined],
  ["footsteps.safetensors", undefined],
] as const)("%s is sampled by %s", ([path, preset]) => {
  expect(presetOfFile(`/models/${path}`)).toBe(preset);
});

it("noise levels contradict other steps, and shifts", () => {
  expect(() => chooseSampling({ preset: "causvid-3step", steps: 8 }, { steps: 50 }, [])).toThrow(/make 3 steps, not 8/);
  expect(() => chooseSampling({ sigmas: [1, 0.5], steps: 3 }, { steps: 50 }, [])).toThrow(/make 2 steps, not 3/);
  expect(() => chooseSampling({ sigmas: [1, 0.5], shift: 3 }, { steps: 50 }, [])).toThrow(/leave out the shift 3/);
});
