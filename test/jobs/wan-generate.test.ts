import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import type { EmitHandler } from "../../src/engine/workers.js";
import { DitrunError } from "../../src/failure.js";
import { loadWanModel } from "../../src/models/load.js";
import { meshSize, type PlanDocument, planSchema } from "../../src/plan/schema.js";
import { wanGenerateRankSchema } from "../../src/protocol/results.js";
import { readTensor, relativeL2 } from "../compare.js";
import { caseFile, checkpointOf, type Layout, readIds, weightsOf } from "../unit/worker/wan/golden.js";
import { Crews } from "./crews.js";

const crews = Crews.ofFile();
let folder: string;
let dumps = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const settings = z
  .object({ shift: z.number(), guide_scale: z.number(), steps: z.int(), solver: z.enum(["unipc", "dpm++"]) })
  .parse(JSON.parse(readFileSync("test/golden/data/wan/sample.json", "utf8")));

const names = [
  "context",
  "context_null",
  ...Array.from({ length: settings.steps }, (_, step) => `latent.${step}`),
  "video",
];
const goldenNames: Record<string, string> = { context: "t5.prompt", context_null: "t5.negative", video: "video" };

/** The golden run on real CPU workers: what it dumped, the frames and the names of all that rank 0 handed over. */
async function generate(
  document: PlanDocument,
  layout: Layout,
  { onFrame, perNode }: { readonly onFrame?: () => Promise<void>; readonly perNode?: number[] | undefined } = {},
) {
  const plan = planSchema.parse({ dtype: "fp32", ...document });
  const dump = join(folder, `dump-${dumps++}.safetensors`);
  const frames: Uint8Array[] = [];
  const onEmit: EmitHandler = async (_rank, name, value) => {
    if (name !== "frame") return;
    frames.push(value);
    await onFrame?.();
  };
  const results = await crews.run(
    {
      kind: "wan-generate",
      model: await loadWanModel(await checkpointOf(layout)),
      plan,
      weights: await weightsOf(layout),
      ids: { prompt: [...(await readIds("prompt"))], negative: [...(await readIds("negative"))] },
      size: { frames: 3, height: 8, width: 12 },
      sampling: {
        solver: settings.solver,
        steps: settings.steps,
        shift: settings.shift,
        guideScale: settings.guide_scale,
      },
      seed: 0,
      noise: { file: caseFile, tensor: "noise" },
      dump,
    },
    meshSize(plan.mesh),
    { onEmit, perNode },
  );
  const tensors = new Map<string, Float32Array>();
  for (const name of names) tensors.set(name, await readTensor(dump, name));
  return { tensors, frames, ranks: z.array(wanGenerateRankSchema).parse(results) };
}

const mesh = (cfg: number, cp: number, tp: number): PlanDocument => ({ mesh: { cfg, cp, tp } });

describe("the golden sampling loop on CPU workers, fp32", () => {
  let alone: Awaited<ReturnType<typeof generate>>;
  let golden: Map<string, Float32Array>;
  beforeAll(async () => {
    golden = new Map();
    for (const name of names) golden.set(name, await readTensor(caseFile, goldenNames[name] ?? `sample.${name}`));
    alone = await generate({}, "original");
  });

  const expectClose = (tensors: Map<string, Float32Array>, reference: Map<string, Float32Array>, tolerance: number) => {
    for (const name of names) {
      const error = relativeL2(tensors.get(name) ?? [], reference.get(name) ?? [0]);
      expect(error, name).toBeLessThan(tolerance);
    }
  };

  it("agrees with the reference on one worker, step by step", () => expectClose(alone.tensors, golden, 1e-4));

  it("hands over the video's frames in 8 bits", () => {
    const video = golden.get("video") ?? new Float32Array();
    const plane = 64 * 96;
    expect(alone.frames.length).toBe(9);
    let most = 0;
    alone.frames.forEach((frame, index) => {
      expect(frame.length).toBe(3 * plane);
      frame.forEach((value, i) => {
        const pixel = video[(i % 3) * 9 * plane + index * plane + Math.floor(i / 3)] ?? Number.NaN;
        most = Math.max(most, Math.abs(value - (pixel + 1) * 127.5));
      });
    });
    // Half a level by rounding, and a little for float32.
    expect(most).toBeLessThan(0.55);
  });

  it("reports every stage, step and forward", () => {
    const [rank] = alone.ranks;
    expect(rank?.stepsMs.length).toBe(settings.steps);
    expect([rank?.forwardsMs.length, rank?.forwardsAtOnce]).toEqual([settings.steps, 2]);
    for (const milliseconds of Object.values(rank?.stages ?? { none: 0 })) expect(milliseconds).toBeGreaterThan(0);
  });

  it("ends when a frame cannot be taken, with the reason", async () => {
    let taken = 0;
    const full = async () => {
      if (++taken === 3) throw new DitrunError("ERR_FILE_WRITE", "Cannot write the third frame: the disk is full.");
    };
    await expect(generate({ mesh: { cp: 2 } }, "original", { onFrame: full })).rejects.toThrow(
      "Cannot write the third frame: the disk is full.",
    );
    expect(taken).toBe(3);
  });

  const layouts: [string, PlanDocument, Layout, number[]?][] = [
    ["one worker without graphs", { graph: false }, "diffusers"],
    ["cfg2", mesh(2, 1, 1), "original"],
    ["cp2", mesh(1, 2, 1), "diffusers"],
    ["cp3", mesh(1, 3, 1), "original"],
    ["tp2", mesh(1, 1, 2), "original"],
    ["cp2×tp2", mesh(1, 2, 2), "diffusers"],
    ["cfg2×cp4", mesh(2, 4, 1), "diffusers"],
    ["cfg2×cp2×tp2", mesh(2, 2, 2), "original"],
    ["cfg2×cp2 over TCP", { ...mesh(2, 2, 1), ring: { transport: "nccl" } }, "original"],
    // Only tp is within a host: keys and values, texts, rows of the video and guidance cross.
    ["cp4×tp2 on two hosts", mesh(1, 4, 2), "diffusers", [4, 4]],
  ];
  it.for(layouts)("agrees with the reference and with one worker under %s", async ([, plan, layout, perNode]) => {
    const { tensors, frames, ranks } = await generate(plan, layout, { perNode });
    expectClose(tensors, golden, 1e-4);
    expectClose(tensors, alone.tensors, 1e-5);
    expect(frames.length).toBe(9);
    const { mesh } = planSchema.parse(plan);
    const forwards = (mesh.cfg === 2 ? 1 : 2) * settings.steps;
    for (const { forwardsMs, forwardsAtOnce } of ranks) expect(forwardsMs.length * forwardsAtOnce).toBe(forwards);
    expect(ranks[0]?.forwardsAtOnce).toBe(meshSize(mesh) === 1 ? 2 : 1);
  });
});

describe("the golden sampling loop on CPU workers, fp8 everywhere", () => {
  it("gives the same bits as graphs that are replayed as it does launch by launch, near the reference", async () => {
    const fp8: PlanDocument = {
      ...{ dtype: "bf16", mesh: { cp: 3 } },
      ...{ linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } },
    };
    const replayed = await generate(fp8, "original");
    const launched = await generate({ ...fp8, graph: false }, "original");
    for (const name of names) expect(replayed.tensors.get(name), name).toEqual(launched.tensors.get(name));
    const last = `latent.${settings.steps - 1}`;
    const error = relativeL2(replayed.tensors.get(last) ?? [], await readTensor(caseFile, `sample.${last}`));
    // A forward is off by about 3 %, and guidance, which takes a difference of two, multiplies that.
    expect(error).toBeLessThan(0.1);
    expect(error).toBeGreaterThan(1e-3);
  });
});
