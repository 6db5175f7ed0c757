import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadCheckpointModel } from "../../src/models/load.js";
import { meshSize, type PlanDocument, planSchema } from "../../src/plan/schema.js";
import { readTensor, relativeL2 } from "../compare.js";
import { Crews } from "./crews.js";

const directory = "test/golden/data/dit";
const crews = Crews.ofFile();
let folder: string;
let outputs = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One forward of the golden model under a plan, on real CPU workers. */
async function forward(document: PlanDocument): Promise<Float32Array> {
  const plan = planSchema.parse({ dtype: "fp32", ...document });
  const output = join(folder, `output-${outputs++}.safetensors`);
  await crews.run(
    {
      kind: "forward",
      model: await loadCheckpointModel(directory),
      plan,
      weights: { from: "directory", directory },
      seed: 1,
      inputs: join(directory, "case.safetensors"),
      output,
    },
    meshSize(plan.mesh),
  );
  return readTensor(output, "output");
}

const meshes = [1, 2, 4].flatMap((tp) =>
  Array.from({ length: Math.floor(8 / tp) }, (_, index) => ({ cfg: 1, cp: index + 1, tp })),
);

describe("the golden DiT on CPU workers, fp32", () => {
  it.for(meshes)("agrees with the reference under $cp × $tp (cp × tp)", async (mesh) => {
    expect(
      relativeL2(await forward({ mesh }), await readTensor(join(directory, "case.safetensors"), "output")),
    ).toBeLessThan(1e-5);
  });

  const replicatedMlp = [
    { path: "blocks.*.mlp.0", split: "replicated" as const },
    { path: "blocks.*.mlp.2", split: "replicated" as const },
  ];
  const variants: [string, PlanDocument][] = [
    ["tensor-parallel embeddings and head", { mesh: { cp: 2, tp: 4 }, embeddings: { tensorParallel: true } }],
    ["sequence-parallel norms, uneven shares", { mesh: { cp: 3, tp: 2 }, norms: { sequenceParallel: true } }],
    ["both", { mesh: { cp: 1, tp: 4 }, embeddings: { tensorParallel: true }, norms: { sequenceParallel: true } }],
    ["a replicated mlp", { mesh: { cp: 1, tp: 2 }, layers: replicatedMlp }],
    ["the generic attention kernel", { mesh: { cp: 2, tp: 1 }, attention: { kernel: "generic" } }],
  ];
  it.for(variants)("agrees with the reference with %s", async ([, plan]) => {
    expect(
      relativeL2(await forward(plan), await readTensor(join(directory, "case.safetensors"), "output")),
    ).toBeLessThan(1e-5);
  });
});

describe("the golden DiT on CPU workers, bf16, fp16 and fp8", () => {
  // bf16 keeps 8 bits and e4m3 4: one rounding is 2^-9 or 2^-4 of a value, and a few dozen of them add up in 3 blocks.
  const cases: [string, number, PlanDocument][] = [
    ["bf16, one worker", 0.02, { dtype: "bf16" }],
    ["bf16, cp2×tp2", 0.02, { dtype: "bf16", mesh: { cp: 2, tp: 2 } }],
    ["fp8 linears, cp2×tp2", 0.1, { dtype: "bf16", mesh: { cp: 2, tp: 2 }, linear: { dtype: "e4m3" } }],
    ["fp16 attention, one worker", 0.02, { dtype: "bf16", attention: { dtype: "fp16" } }],
    ["fp16 attention, cp3×tp2", 0.02, { dtype: "bf16", mesh: { cp: 3, tp: 2 }, attention: { dtype: "fp16" } }],
    [
      "fp16 attention, fp8 linears, cp2",
      0.1,
      { dtype: "bf16", mesh: { cp: 2 }, attention: { dtype: "fp16" }, linear: { dtype: "e4m3" } },
    ],
  ];
  it.for(cases)("%s: relative L2 at most %d", async ([, tolerance, plan]) => {
    const error = relativeL2(await forward(plan), await readTensor(join(directory, "case.safetensors"), "output"));
    expect(error).toBeLessThan(tolerance);
    // Nothing that rounds can be as exact as float32: a plan that silently ran in float32 must not pass.
    expect(error).toBeGreaterThan(1e-4);
  });
});

describe("the golden DiT with sequence-parallel norms", () => {
  // Each row is summed and normalised in one place instead of in all, by the same additions; in e4m3 it travels with its scale,
  // but without its bound, so that the feed-forward net's inside has other scales.
  const linears: [string, number, PlanDocument["linear"]][] = [
    ["bf16: the same bits", 0, {}],
    ["fp8: relative L2 at most 0.02", 0.02, { dtype: "e4m3" }],
  ];
  it.for(linears)("agrees with whole norms under cp3×tp2, linears in %s", async ([, tolerance, linear]) => {
    const plan = { dtype: "bf16", mesh: { cp: 3, tp: 2 }, linear } as const;
    const error = relativeL2(await forward({ ...plan, norms: { sequenceParallel: true } }), await forward(plan));
    expect(error).toBeLessThanOrEqual(tolerance);
  });
});

describe("the golden DiT with attention in e4m3, the rest in fp32", () => {
  const attention = { dtype: "e4m3" } as const;
  const cases: [string, PlanDocument][] = [
    ["cp2", { mesh: { cp: 2 } }],
    ["cp3, uneven shares", { mesh: { cp: 3 } }],
    ["cp2×tp2", { mesh: { cp: 2, tp: 2 } }],
    ["cp4×tp2", { mesh: { cp: 4, tp: 2 } }],
    ["cp3×tp2, sequence-parallel norms", { mesh: { cp: 3, tp: 2 }, norms: { sequenceParallel: true } }],
  ];
  let golden: Float32Array;
  let alone: Float32Array;
  beforeAll(async () => {
    golden = await readTensor(join(directory, "case.safetensors"), "output");
    alone = await forward({ attention });
  });

  // Attention is off by a few percent of what it adds to the residual stream (each operand by 2.6 %, root mean square), which is
  // about a hundredth of that stream. What is not rounded is below 1e-5: a plan that silently ran in fp32 must not pass.
  it("one worker: relative L2", () => {
    const error = relativeL2(alone, golden);
    expect(error).toBeLessThan(1e-3);
    expect(error).toBeGreaterThan(1e-4);
  });

  // Not equal to one worker's: 128 keys share a scale, and a rank counts them from its own first key; probabilities are rounded
  // against the largest score so far, and ranks begin with different keys. Queries and values are rounded alike in all layouts.
  it.for(cases)("%s: as near, and near one worker", async ([, plan]) => {
    const output = await forward({ ...plan, attention });
    const error = relativeL2(output, golden);
    expect(error).toBeLessThan(1e-3);
    expect(error).toBeGreaterThan(1e-4);
    expect(relativeL2(output, alone)).toBeLessThan(relativeL2(alone, golden));
  });
});
