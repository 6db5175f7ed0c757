import { describe, expect, it } from "vitest";
import { runJob } from "../../src/engine/workers.js";
import { openLog } from "../../src/launcher/logs.js";
import { builtKernels } from "../../src/paths.js";
import { type PlanDocument, planSchema } from "../../src/plan/schema.js";
import { jobSchema } from "../../src/protocol/job.js";
import { profileRankSchema } from "../../src/protocol/results.js";

// A layout never changes a result, so a part of a plan that is ignored shows in nothing but what is launched.

const [tokens, width, heads] = [64, 64, 4] as const;
const model = {
  kind: "dit",
  name: "small",
  imageSize: 64,
  channels: 4,
  patch: 8,
  width,
  heads,
  depth: 1,
  classes: 10,
} as const;

/** The launches of one forward on rank 0 of two that share heads and hidden columns: how often each kernel ran with each shape. */
async function launches(document: PlanDocument): Promise<Map<string, number>> {
  const plan = planSchema.parse({ dtype: "bf16", mesh: { tp: 2 }, ...document });
  const job = jobSchema.parse({
    id: "switches",
    device: "cpu",
    kernels: builtKernels("cpu"),
    timeoutSeconds: 60,
    task: {
      kind: "profile",
      model,
      plan,
      weights: { from: "random", seed: 0 },
      seed: 0,
      warmup: 0,
      iterations: 1,
      trace: false,
    },
  });
  const [result] = await runJob({ job, nproc: 2, log: openLog("warn"), port: 0 });
  const { kernels } = profileRankSchema.parse(result);
  return new Map(kernels.map(({ name, shape, launches }) => [`${name} ${shape}`, launches]));
}

const products = (found: Map<string, number>) => [...found.keys()].filter((name) => name.startsWith("gemm")).sort();

describe("what a plan switches on is on, under tp2", () => {
  // rows × outputs × inputs; the label and time embedding have one row.
  const whole = [
    `gemm ${tokens}×${4 * 64}×${width} bf16`,
    `gemm ${tokens}×${width}×${4 * 64} bf16`,
    `gemm 1×${width}×${width} bf16`,
  ];

  it("bf16: products of the blocks are halves, of embeddings and head whole; one sum for each residual", async () => {
    const found = await launches({});
    expect(products(found)).toEqual(
      [
        `gemm ${tokens}×3·${width / 2}×${width} bf16`,
        `gemm ${tokens}×${width}×${width / 2} bf16`,
        `gemm ${tokens}×${2 * width}×${width} bf16`,
        `gemm ${tokens}×${width}×${2 * width} bf16`,
        ...whole,
      ].sort(),
    );
    expect(found.get(`peerSum ${tokens}×${width}`)).toBe(2);
    expect([...found.keys()].filter((name) => name.startsWith("peerGather"))).toEqual([]);
  });

  it("linear.dtype e4m3: column-parallel and row-parallel products of the blocks", async () => {
    const found = await launches({ linear: { dtype: "e4m3" } });
    expect(products(found)).toEqual(
      [
        `gemm ${tokens}×3·${width / 2}×${width} e4m3`,
        `gemm ${tokens}×${width}×${width / 2} e4m3`,
        `gemm ${tokens}×${2 * width}×${width} e4m3`,
        `gemm ${tokens}×${width}×${2 * width} e4m3`,
        ...whole,
      ].sort(),
    );
  });

  it("norms.sequenceParallel: each rank sums its rows only, and what the norms give is gathered", async () => {
    const found = await launches({ norms: { sequenceParallel: true } });
    expect(found.get(`peerSum ${tokens / 2}×${width}`)).toBe(2);
    expect(found.get(`peerSum ${tokens}×${width}`)).toBeUndefined();
    expect(found.get(`layerNorm ${tokens / 2}×${width}`)).toBe(3);
    const gathers = [...found].filter(([name]) => name.startsWith("peerGather"));
    expect(gathers.reduce((sum, [, count]) => sum + count, 0)).toBe(3);
  });

  it("embeddings.tensorParallel: products of embeddings and head are halves, and their columns are gathered", async () => {
    const found = await launches({ embeddings: { tensorParallel: true } });
    for (const name of whole.slice(0, 2)) expect(products(found)).not.toContain(name);
    expect(products(found)).toEqual(
      expect.arrayContaining([
        `gemm ${tokens}×${width / 2}×${4 * 64} bf16`,
        `gemm ${tokens}×${2 * 64}×${width} bf16`,
        `gemm 1×${width / 2}×${width} bf16`,
      ]),
    );
    const gathers = [...found].filter(([name]) => name.startsWith("peerGather"));
    expect(gathers.reduce((sum, [, count]) => sum + count, 0)).toBe(2);
  });
});
