import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { z } from "zod";
import { openSafetensors } from "../../../../src/formats/safetensors.js";
import { loadWanModel } from "../../../../src/models/load.js";
import { detectLayout } from "../../../../src/models/wan/checkpoint-layout.js";
import type { PlanDocument } from "../../../../src/plan/schema.js";
import { planSchema } from "../../../../src/plan/schema.js";
import type { WanGenerateTask } from "../../../../src/protocol/job.js";

/** A small Wan 2.2 T2V-A14B, and what the authors' code made of it. */
export const goldenA14b = resolve("test/golden/data/wan22-t2v-a14b");
export const caseOfA14b = `${goldenA14b}/case.safetensors`;

const runSchema = z.object({
  shift: z.number(),
  guide_scale: z.tuple([z.number(), z.number()]),
  boundary: z.number(),
  steps: z.int(),
  solver: z.enum(["unipc", "dpm++"]),
  frame_num: z.int(),
  experts: z.array(z.enum(["high", "low"])),
});
export const runsOfA14b = z
  .object({ runs: z.object({ sample: runSchema, sample2: runSchema }) })
  .parse(JSON.parse(readFileSync(`${goldenA14b}/settings.json`, "utf8"))).runs;

async function idsOf(which: "prompt" | "negative"): Promise<number[]> {
  const file = await openSafetensors(caseOfA14b);
  const bytes = await file.read(`tok.${which}`);
  await file.close();
  return Array.from(new BigInt64Array(bytes.slice().buffer), Number);
}

/** A recorded run as a task for workers. */
export async function taskOfA14b(run: keyof typeof runsOfA14b, plan: PlanDocument): Promise<WanGenerateTask> {
  const checkpoint = await detectLayout(goldenA14b);
  const { transformer, transformer2, textEncoder, vae } = checkpoint;
  const { shift, guide_scale, boundary, steps, solver, frame_num } = runsOfA14b[run];
  const [low, high] = guide_scale;
  return {
    kind: "wan-generate",
    model: await loadWanModel(checkpoint),
    plan: planSchema.parse({ dtype: "fp32", ...plan }),
    weights: {
      ...{ from: "checkpoint", transformer: transformer.weights },
      ...(transformer2 && { transformer2: transformer2.weights }),
      ...{ textEncoder: textEncoder.weights, vae: vae.weights },
    },
    ids: { prompt: await idsOf("prompt"), negative: await idsOf("negative") },
    size: { frames: (frame_num - 1) / 4 + 1, height: 6, width: 8 },
    sampling: { solver, steps, shift, guideScale: high, low: { boundary, guideScale: low } },
    seed: 0,
    noise: { file: caseOfA14b, tensor: `${run}.noise` },
  };
}
