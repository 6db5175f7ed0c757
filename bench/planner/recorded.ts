// The recorded runs of runs.json, and what each of them computes.
import { readFileSync } from "node:fs";
import { z } from "zod";
import { loadModel } from "../../src/models/load.js";
import { traitsOf } from "../../src/models/registry.js";
import type { Model } from "../../src/models/schema.js";
import type { Operation } from "../../src/models/walk/operation.js";
import { settingOf } from "../../src/plan/planner/evaluate.js";
import { usualMachine } from "../../src/plan/planner/machine.js";
import { groundOf } from "../../src/plan/planner/placement.js";
import type { Setting } from "../../src/plan/planner/predict.js";
import { planSchema } from "../../src/plan/schema.js";
import { writtenPlan } from "../../src/plan/written.js";

const runSchema = z.strictObject({
  file: z.string(),
  model: z.string(),
  plan: z.string(),
  what: z.enum(["forward", "step", "decode"]),
  ms: z.number().positive(),
  /** Of the latent: frames, height, width. */
  size: z.tuple([z.int(), z.int(), z.int()]).optional(),
  transport: z.enum(["nccl"]).optional(),
  vae: z.enum(["bf16", "fp16"]).optional(),
  sequenceParallel: z.boolean().optional(),
  together: z.boolean().optional(),
  /** Runs that were made beside each other, with other plans for the same work. */
  group: z.string().optional(),
  old: z.string().optional(),
  note: z.string().optional(),
});
export type Run = z.infer<typeof runSchema>;

/** A run, and what the planner predicts its time from. */
export interface RecordedRun extends Run {
  readonly operations: readonly Operation[];
  readonly setting: Setting;
}

/** All of them, on the machine that they were made on. */
export async function recordedRuns(): Promise<RecordedRun[]> {
  const text = readFileSync(new URL("runs.json", import.meta.url), "utf8");
  const runs = z.array(runSchema).parse(JSON.parse(text));
  const models = new Map<string, Model>();
  for (const { model } of runs) models.set(model, models.get(model) ?? (await loadModel(model)));
  return runs.map((run) => ({ ...run, ...workOf(run, models.get(run.model)) }));
}

function workOf(run: Run, model: Model | undefined): Pick<RecordedRun, "operations" | "setting"> {
  const written = writtenPlan(run.plan);
  if (!model || !written) throw new Error(`${run.model} and ${run.plan} are not understood.`);
  const plan = planSchema.parse({
    ...written.plan,
    ...(run.transport && { ring: { transport: run.transport } }),
    ...(run.vae && { vae: { dtype: run.vae } }),
    ...(run.sequenceParallel && { norms: { sequenceParallel: true } }),
    ...(run.together !== undefined && { guidance: { together: run.together } }),
  });
  const machine = usualMachine();
  const [frames, height, width] = run.size ?? [21, 60, 104];
  const setting = settingOf(plan, machine);
  const ground = groundOf(setting.placement, machine);
  const { forward, video } = traitsOf(model).onPaper(plan, { frames, height, width }, ground);
  return { operations: run.what === "forward" ? forward : (video?.[run.what] ?? []), setting };
}
