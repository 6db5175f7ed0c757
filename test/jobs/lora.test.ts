import { createHash } from "node:crypto";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runJob } from "../../src/engine/workers.js";
import { type Engine, openEngine, type VideoRequest } from "../../src/index.js";
import { openLog } from "../../src/launcher/logs.js";
import { loadWanModel } from "../../src/models/load.js";
import { builtKernels } from "../../src/paths.js";
import { meshSize, planSchema } from "../../src/plan/schema.js";
import { readTensor, relativeL2 } from "../compare.js";
import { writeRandomLora } from "../lora.js";
import { caseFile, checkpointOf, weightsOf } from "../unit/worker/wan/golden.js";

let folder: string;
let lora: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  lora = join(folder, "random.safetensors");
  await writeRandomLora(lora, await loadWanModel(await checkpointOf("original")));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One forward of the golden latent on real CPU workers. */
async function forward(mesh: { cp: number; tp: number }): Promise<Float32Array> {
  const plan = planSchema.parse({ dtype: "fp32", mesh });
  const output = join(folder, "output.safetensors");
  await runJob({
    job: {
      ...{ id: "lora", device: "cpu", kernels: builtKernels("cpu"), timeoutSeconds: 60 },
      task: {
        ...{ kind: "wan-forward", model: await loadWanModel(await checkpointOf("original")), plan },
        weights: await weightsOf("original"),
        inputs: { file: caseFile, latent: "noise", ids: "tok.0.ids" },
        ...{ t: 567, output },
        loras: [{ file: lora, strength: 1 }],
      },
    },
    ...{ nproc: meshSize(plan.mesh), port: 0, log: openLog("warn") },
  });
  return readTensor(output, "output");
}

test("every layout lays its part of a LoRA over its part of the weights", async () => {
  const alone = await forward({ cp: 1, tp: 1 });
  for (const mesh of [
    { cp: 2, tp: 1 },
    { cp: 1, tp: 2 },
  ])
    expect(relativeL2(await forward(mesh), alone), JSON.stringify(mesh)).toBeLessThan(1e-5);
  expect(relativeL2(await readTensor(caseFile, "dit.output"), alone)).toBeGreaterThan(0.05);
});

const small = { width: 64, height: 64, frames: 5 };

async function make(engine: Engine, request: Partial<VideoRequest>): Promise<string> {
  const hash = createHash("sha256");
  await engine.run(
    { ...small, prompt: "A red car", steps: 2, ...request },
    { onEvent: (event) => void (event.kind === "frame" && hash.update(event.pixels)) },
  );
  return hash.digest("hex");
}

test("an engine changes LoRAs and strengths from request to request, and makes the old videos without them", async () => {
  const { directory } = await checkpointOf("original");
  const plan = planSchema.parse({ dtype: "bf16", linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } });
  const options = { model: directory, plan, device: "cpu", timeoutSeconds: 60, first: small } as const;
  const full = [{ file: lora, strength: 1 }];
  const fresh = await openEngine({ ...options, loras: full });
  const wanted = await make(fresh, {});
  await fresh.close();

  await using engine = await openEngine(options);
  const base = await make(engine, {});
  expect(wanted).not.toBe(base);
  // Graphs exist by the second step of the first video: scales and bounds in them are those of the weights at hand.
  expect(await make(engine, { loras: full })).toBe(wanted);
  const half = await make(engine, { loras: [{ file: lora, strength: 0.5 }] });
  expect([base, wanted]).not.toContain(half);
  await expect(
    make(engine, { loras: [{ file: join(folder, "absent.safetensors"), strength: 1 }] }),
  ).rejects.toMatchObject({ code: "ERR_FILE_READ" });
  expect(await make(engine, { loras: [] })).toBe(base);
});

test("an engine notices a LoRA that was trained on under the same name", async () => {
  const { directory } = await checkpointOf("original");
  const options = { model: directory, plan: "single-fp8", device: "cpu", timeoutSeconds: 60, first: small } as const;
  await using engine = await openEngine(options);
  const twice = (file: string) => ({ loras: [0.5, 0.5].map((strength) => ({ file, strength })) });
  const file = join(folder, "trained-on.safetensors");
  copyFileSync(lora, file);
  const before = await make(engine, twice(file));
  expect(await make(engine, { loras: [{ file, strength: 1 }] })).toBe(before);
  // Trained on, under the same name.
  const later = join(folder, "later.safetensors");
  await writeRandomLora(later, await loadWanModel(await checkpointOf("original")), /ffn/, 2);
  copyFileSync(later, file);
  const anew = await make(engine, twice(file));
  expect(anew).not.toBe(before);
  expect(await make(engine, twice(later))).toBe(anew);
});

test("guidance 1 leaves no worker without work: the cfg of the plan becomes cp", async () => {
  const { directory } = await checkpointOf("original");
  const options = { model: directory, plan: "cfg2", device: "cpu", timeoutSeconds: 60, first: small } as const;
  await using engine = await openEngine({ ...options, preset: "lightx2v-4step" });
  expect(engine.plan.mesh).toEqual({ cfg: 1, cp: 2, tp: 1 });
  expect(await make(engine, { steps: undefined })).toMatch(/^[0-9a-f]{64}$/);
});
