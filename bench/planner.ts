#!/usr/bin/env node
// The planner's predictions beside every recorded run: the error of each latency, and whether the plan that it ranks first was the
// fastest.   npx tsx bench/planner.ts [--fit] [--runs]
// --runs lists each run. --fit also fits the coefficients anew, and tells the error of each run that the others alone predict.
// bench/planner/runs.json has the runs, from bench/results and bench/NOTES.md. `old` names a kernel that has changed since: such runs
// are counted apart, for the planner knows today's kernels.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { z } from "zod";
import { loadModel } from "../src/models/load.js";
import { traitsOf } from "../src/models/registry.js";
import type { Model } from "../src/models/schema.js";
import type { Operation } from "../src/models/walk/operation.js";
import { settingOf } from "../src/plan/planner/evaluate.js";
import { usualMachine } from "../src/plan/planner/machine.js";
import { groundOf } from "../src/plan/planner/placement.js";
import { type Coefficients, coefficients, predict, type Setting } from "../src/plan/planner/predict.js";
import { planSchema } from "../src/plan/schema.js";
import { writtenPlan } from "../src/plan/written.js";

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
type Run = z.infer<typeof runSchema>;

const folder = join(dirname(fileURLToPath(import.meta.url)), "planner");
const runs = z.array(runSchema).parse(JSON.parse(readFileSync(join(folder, "runs.json"), "utf8")));
const { values } = parseArgs({ options: { fit: { type: "boolean" }, runs: { type: "boolean" } } });
const models = new Map<string, Model>();
for (const { model } of runs) models.set(model, models.get(model) ?? (await loadModel(model)));
const machine = usualMachine();

/** What a run computes, and on what. */
function workOf(run: Run): { readonly operations: readonly Operation[]; readonly setting: Setting } {
  const model = models.get(run.model);
  const written = writtenPlan(run.plan);
  if (!model || !written) throw new Error(`${run.model} and ${run.plan} are not understood.`);
  const plan = planSchema.parse({
    ...written.plan,
    ...(run.transport && { ring: { transport: run.transport } }),
    ...(run.vae && { vae: { dtype: run.vae } }),
    ...(run.sequenceParallel && { norms: { sequenceParallel: true } }),
    ...(run.together !== undefined && { guidance: { together: run.together } }),
  });
  const [frames, height, width] = run.size ?? [21, 60, 104];
  const setting = settingOf(plan, machine);
  const ground = groundOf(setting.placement, machine);
  const { forward, video } = traitsOf(model).onPaper(plan, { frames, height, width }, ground);
  return { operations: run.what === "forward" ? forward : (video?.[run.what] ?? []), setting };
}

const works = new Map(runs.map((run) => [run, workOf(run)]));

function predicted(run: Run, fitted: Coefficients): number {
  const { operations, setting } = works.get(run) ?? workOf(run);
  return predict(operations, { ...setting, coefficients: fitted }).milliseconds;
}

const errorsOf = (of: readonly Run[], fitted: Coefficients) => of.map((run) => predicted(run, fitted) / run.ms - 1);
const mean = (errors: readonly number[]) => errors.reduce((sum, each) => sum + Math.abs(each), 0) / errors.length;
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

function tell(name: string, errors: readonly number[]): void {
  const sizes = errors.map(Math.abs).sort((a, b) => a - b);
  const within = (limit: number) => `${sizes.filter((each) => each <= limit).length} of ${sizes.length}`;
  console.log(
    `${name}: mean error ${percent(mean(errors))}, largest ${percent(sizes.at(-1) ?? 0)}; within 5 % ${within(0.05)}, within 10 % ${within(0.1)}`,
  );
}

const today = runs.filter(({ old }) => old === undefined);
const before = runs.filter(({ old }) => old !== undefined);
if (values.runs) {
  for (const run of runs) {
    const ms = predicted(run, coefficients);
    const words = [run.model, run.plan, run.transport, run.what, run.size?.join("×"), run.old && `(${run.old})`];
    console.log(
      `${percent(ms / run.ms - 1).padStart(8)}  ${ms.toFixed(1).padStart(7)} for ${String(run.ms).padStart(6)} ms  ${words.filter(Boolean).join(" ")}`,
    );
  }
}
tell("Runs with today's kernels", errorsOf(today, coefficients));
tell("Runs with kernels that changed since", errorsOf(before, coefficients));

/** Of runs beside each other: how much slower the plan that the planner ranks first was than the fastest. */
const names = new Set(runs.flatMap(({ group }) => group ?? []));
for (const name of names) {
  const others = runs.filter(({ group, plan }) => group === name && !plan.startsWith("single"));
  const chosen = others.toSorted((a, b) => predicted(a, coefficients) - predicted(b, coefficients))[0];
  const fastest = others.toSorted((a, b) => a.ms - b.ms)[0];
  if (!chosen || !fastest) continue;
  console.log(
    `${name}: ranked first ${chosen.plan}, fastest ${fastest.plan}${chosen === fastest ? "" : `, ${percent(chosen.ms / fastest.ms - 1)} apart`}`,
  );
}

/** The least mean error, coordinate by coordinate from where it begins. */
function refine(of: readonly Run[], from: Coefficients, rounds: number): Coefficients {
  let best = { fitted: from, error: mean(errorsOf(of, from)) };
  for (let round = 0; round < rounds; round++) {
    for (const name of ["productOverlap", "waveLoss", "ringLoss", "spread"] as const) {
      for (const factor of [0, 0.5, 0.7, 0.85, 0.93, 1.07, 1.15, 1.3, 1.6, 2]) {
        const fitted = { ...best.fitted, [name]: best.fitted[name] * factor };
        const error = mean(errorsOf(of, fitted));
        if (error < best.error) best = { fitted, error };
      }
    }
  }
  return best.fitted;
}

if (values.fit) {
  const fitted = refine(today, coefficients, 4);
  console.log("Fitted:", fitted);
  tell("Fitted anew", errorsOf(today, fitted));
  // Without its twins as well: other runs of the same work are nearly the same number.
  const workName = ({ model, plan, what, size, transport }: Run) => [model, plan, what, size, transport].join();
  const kinds = [...new Set(today.map(workName))];
  const left = kinds.flatMap((kind) => {
    const others = refine(
      today.filter((run) => workName(run) !== kind),
      fitted,
      2,
    );
    return errorsOf(
      today.filter((run) => workName(run) === kind),
      others,
    );
  });
  tell("Each kind of run, predicted by the others alone", left);
}
