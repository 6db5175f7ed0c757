import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel, loadWanModel } from "../../src/models/load.js";
import { meshSize, type PlanDocument, planSchema } from "../../src/plan/schema.js";
import type { WanForwardTask } from "../../src/protocol/job.js";
import { readTensor, relativeL2 } from "../compare.js";
import { caseFile, checkpointOf, goldenModel, type Layout, weightsOf } from "../unit/worker/wan/golden.js";
import { Crews } from "./crews.js";

const crews = Crews.ofFile();
let folder: string;
let outputs = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Result {
  readonly context: Float32Array;
  readonly output: Float32Array;
}

/** The golden prompt encoded and one forward of the golden latent under a plan, on real CPU workers. */
async function forward(document: PlanDocument, change: Partial<WanForwardTask> = {}, layout: Layout = "original") {
  const plan = planSchema.parse({ dtype: "fp32", ...document });
  const output = join(folder, `output-${outputs++}.safetensors`);
  await crews.run(
    {
      kind: "wan-forward",
      model: await loadWanModel(await checkpointOf(layout)),
      plan,
      weights: await weightsOf(layout),
      inputs: { file: caseFile, latent: "noise", ids: "tok.0.ids" },
      t: 567,
      output,
      ...change,
    },
    meshSize(plan.mesh),
  );
  return { context: await readTensor(output, "context"), output: await readTensor(output, "output") };
}

const mesh = (cp: number, tp: number, cfg = 1) => ({ mesh: { cfg, cp, tp } });

describe("the golden Wan on CPU workers, fp32", () => {
  let alone: Result;
  let golden: Result;
  beforeAll(async () => {
    alone = await forward({});
    golden = { context: await readTensor(caseFile, "t5.prompt"), output: await readTensor(caseFile, "dit.output") };
  });

  // 72 tokens: cp 5 splits them unevenly; 4 heads.
  const layouts: [string, PlanDocument, Layout][] = [
    ["cp2", mesh(2, 1), "original"],
    ["cp3", mesh(3, 1), "diffusers"],
    ["cp5", mesh(5, 1), "original"],
    ["tp2", mesh(1, 2), "original"],
    ["tp4", mesh(1, 4), "diffusers"],
    ["cp2×tp2", mesh(2, 2), "diffusers"],
    ["cp4×tp2", mesh(4, 2), "original"],
    ["cfg2×cp2×tp2", mesh(2, 2, 2), "original"],
    [
      "tp2 with a replicated feed-forward net",
      {
        ...mesh(1, 2),
        layers: [
          { path: "blocks.*.ffn.0", split: "replicated" },
          { path: "blocks.*.ffn.2", split: "replicated" },
        ],
      },
      "original",
    ],
    [
      "tp2 with replicated self-attention",
      {
        ...mesh(1, 2),
        layers: ["q", "k", "v", "o"].map((part) => ({ path: `blocks.*.self_attn.${part}`, split: "replicated" })),
      },
      "original",
    ],
  ];
  it.for(layouts)("agrees with the reference and with one worker under %s", async ([, plan, layout]) => {
    const result = await forward(plan, {}, layout);
    for (const name of ["context", "output"] as const) {
      expect(relativeL2(result[name], golden[name])).toBeLessThan(1e-4);
      expect(relativeL2(result[name], alone[name])).toBeLessThan(1e-5);
    }
  });

  it("refuses q, k and v that are split differently", async () => {
    const layers = [{ path: "blocks.*.self_attn.k", split: "replicated" as const }];
    await expect(forward({ ...mesh(1, 2), layers })).rejects.toThrow(
      "The plan splits blocks.0.self_attn.q heads and blocks.0.self_attn.k replicated",
    );
  });
});

describe("Wan on CPU workers in lower precision", () => {
  // One rounding of bf16 is 2^-9 of a value, one of e4m3 2^-4.
  const cases: [string, number, PlanDocument][] = [
    ["bf16, cp2×tp2", 0.02, { dtype: "bf16", ...mesh(2, 2) }],
    ["fp8 linears, cp2×tp2", 0.1, { dtype: "bf16", ...mesh(2, 2), linear: { dtype: "e4m3" } }],
    ["fp8 attention and ring, cp5", 0.1, { ...mesh(5, 1), attention: { dtype: "e4m3" } }],
    [
      "fp8 everywhere, cfg2×cp3",
      0.1,
      { dtype: "bf16", ...mesh(3, 1, 2), linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } },
    ],
  ];
  it.for(cases)("%s: relative L2 at most %d", async ([, tolerance, plan]) => {
    const { output } = await forward(plan);
    const error = relativeL2(output, await readTensor(caseFile, "dit.output"));
    expect(error).toBeLessThan(tolerance);
    expect(error).toBeGreaterThan(1e-4);
  });
});

describe("Wan with random weights", () => {
  it("has the same weights in every layout", async () => {
    const model = await loadModel(goldenModel);
    if (model.kind !== "wan") throw new Error("wan-golden is no Wan model.");
    const change = { model, weights: { from: "random", seed: 3 } } as const;
    const alone = await forward({}, change);
    const shared = await forward(mesh(2, 2), change);
    expect(Math.max(...alone.output.map(Math.abs))).toBeGreaterThan(0.1);
    for (const name of ["context", "output"] as const) expect(relativeL2(shared[name], alone[name])).toBeLessThan(1e-5);
  });
});
