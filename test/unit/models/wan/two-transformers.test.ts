import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadWanModel } from "../../../../src/models/load.js";
import { detectLayout } from "../../../../src/models/wan/checkpoint-layout.js";
import { chooseSampling } from "../../../../src/models/wan/few-steps.js";
import { findFileModel, findModel } from "../../../../src/models/wan/find-model.js";
import { modelSource, type SourceRequest, transformerSource } from "../../../../src/models/wan/model-source.js";
import { published, usualSampling } from "../../../../src/models/wan/presets.js";
import { expertOf } from "../../../../src/protocol/expert.js";
import { samplingPlan } from "../../../../src/sampling/scheduler.js";
import { readTensor } from "../../../compare.js";
import { caseOfA14b, goldenA14b, runsOfA14b, taskOfA14b } from "../../worker/wan/golden22.js";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-two-"));
});
afterEach(() => rm(dir, { recursive: true }));

const weightsFile = "diffusion_pytorch_model.safetensors";
const high = join(goldenA14b, "high_noise_model", weightsFile);
const low = join(goldenA14b, "low_noise_model", weightsFile);
const request: Omit<SourceRequest, "found"> = {
  ...{ weights: "checkpoint", seed: 0, directory: undefined, download: false, verify: false, environment: {} },
  ...{ onProgress: () => undefined, onNote: () => undefined },
};

describe("the published folder of Wan 2.2 A14B", () => {
  test("has two transformers, of which the first is for high noise", async () => {
    const found = await findModel(goldenA14b);
    expect(found.model).toMatchObject({ width: 64, layers: 2, boundary: 0.875 });
    const { weights, model } = await modelSource({ ...request, found });
    expect(weights).toMatchObject({ transformer: high, transformer2: low });
    expect(model.boundary).toBe(0.875);
  });

  test("is missed where one of them is, or a shard of it", async () => {
    await cp(goldenA14b, join(dir, "copy"), { recursive: true });
    await rm(join(dir, "copy/low_noise_model", weightsFile));
    await expect(detectLayout(join(dir, "copy"))).rejects.toThrow(`low_noise_model/${weightsFile}`);
  });

  test("has transformers of one size", async () => {
    await cp(goldenA14b, join(dir, "copy"), { recursive: true });
    const config = join(dir, "copy/low_noise_model/config.json");
    await writeFile(config, (await readFile(config, "utf8")).replace('"ffn_dim": 112', '"ffn_dim": 128'));
    await expect(detectLayout(join(dir, "copy")).then(loadWanModel)).rejects.toThrow("take both transformers of one");
  });
});

test("the diffusers layout says in model_index.json where the second takes over", async () => {
  const copy = join(dir, "copy");
  await cp("test/golden/data/wan/diffusers", copy, { recursive: true });
  await cp(join(copy, "transformer"), join(copy, "transformer_2"), { recursive: true });
  const index = join(copy, "model_index.json");
  const document = JSON.parse(await readFile(index, "utf8"));
  const edit = (change: object) => writeFile(index, JSON.stringify({ ...document, ...change }));
  await edit({ transformer_2: ["diffusers", "WanTransformer3DModel"], boundary_ratio: 0.9 });
  const checkpoint = await detectLayout(copy);
  expect(checkpoint.transformer2?.weights).toBe(join(copy, "transformer_2", weightsFile));
  expect((await loadWanModel(checkpoint)).boundary).toBe(0.9);
  await edit({ boundary_ratio: 7 });
  await expect(detectLayout(copy)).rejects.toThrow("boundary_ratio");
});

describe("two files", () => {
  test("make a model of two transformers", async () => {
    const found = await findFileModel(high, undefined, {}, low);
    expect(found.model).toMatchObject({ boundary: 0.875 });
    const files = { transformer: high, "second transformer": low };
    const { weights } = await modelSource({ ...request, found, files, directory: goldenA14b });
    expect(weights).toMatchObject({ transformer: high, transformer2: low });
    // One that is not named is the folder's.
    const { weights: rest } = await modelSource({
      ...{ ...request, found: await findModel(goldenA14b) },
      files: { transformer: low },
    });
    expect(rest).toMatchObject({ transformer: low, transformer2: low });
  });

  test("are refused for a model of one", async () => {
    const found = await findModel("test/golden/data/wan/original");
    const files = { "second transformer": low };
    await expect(modelSource({ ...request, found, files })).rejects.toThrow(`--transformer-2 ${low} is for the second`);
  });

  test("are converted one after the other", async () => {
    const found = await findModel(goldenA14b);
    await expect(transformerSource({ ...request, found })).rejects.toThrow("has two transformers, and one file is of");
  });

  test("are found in ComfyUI's folders only where they are named", async () => {
    const folder = join(dir, "diffusion_models");
    await mkdir(folder);
    await cp(high, join(folder, "wan2.2_t2v_high_noise_14B.safetensors"));
    await cp(low, join(folder, "wan2.2_t2v_low_noise_14B.safetensors"));
    await expect(detectLayout(dir)).rejects.toThrow("with --transformer (high noise) and --transformer-2");
  });
});

test.each([
  "2.2-T2V-A14B",
  "t2v-A14B",
  "wan-2.2-t2v-a14b",
  "Wan-AI/Wan2.2-T2V-A14B",
  "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
])("%s is the published model", async (name) => {
  const { model, preset } = await findModel(name);
  expect(model).toMatchObject({ name: "wan-2.2-t2v-a14b", width: 5120, boundary: 0.875 });
  expect(preset).toMatchObject({ size: "1280*720", frames: 81, steps: 40, shift: 12 });
  expect(preset?.repositories).toContain(name.startsWith("Wan-AI") ? name : "Wan-AI/Wan2.2-T2V-A14B");
});

describe("sampling with two transformers", () => {
  const usual = usualSampling(undefined, 0.875);
  const sampling = (asked: Parameters<typeof chooseSampling>[0], files: string[] = []) =>
    chooseSampling(asked, usual, files).sampling;

  test("is as published unless something else is asked for", () => {
    expect(sampling({})).toEqual({
      ...{ solver: "unipc", steps: 40, shift: 12, guideScale: 4 },
      low: { boundary: 0.875, guideScale: 3 },
    });
    expect(sampling({ guideScale: [2, 6], boundary: 0.9 })).toMatchObject({
      ...{ guideScale: 6, low: { boundary: 0.9, guideScale: 2 } },
    });
    expect(sampling({ guideScale: 5 })).toMatchObject({ guideScale: 5, low: { guideScale: 5 } });
    expect(sampling({}, ["Wan2.2-Lightning/high_noise.safetensors"])).toMatchObject({
      ...{ solver: "euler", steps: 4, shift: 5, guideScale: 1, low: { boundary: 0.875, guideScale: 1 } },
    });
  });

  test("is refused where there is one", () => {
    expect(() => chooseSampling({ boundary: 0.9 }, published, [])).toThrow("The boundary 0.9 is between two");
    expect(() => chooseSampling({ guideScale: [3, 4] }, published, [])).toThrow("The guidance 3,4 is of two");
  });

  test.each(["sample", "sample2"] as const)("has the recorded steps: %s", async (run) => {
    const { sampling: recorded } = await taskOfA14b(run, {});
    const { timesteps, sigmas } = samplingPlan(recorded);
    expect(timesteps).toEqual([...(await readTensor(caseOfA14b, `${run}.timesteps`))]);
    const own = await readTensor(caseOfA14b, `${run}.sigmas`);
    expect(Math.max(...sigmas.map((sigma, i) => Math.abs(sigma - (own[i] ?? Number.NaN))))).toBeLessThan(1e-6);
    expect(timesteps.map((t) => expertOf(t, recorded))).toEqual(runsOfA14b[run].experts);
  });
});
