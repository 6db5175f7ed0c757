#!/usr/bin/env node
// The planner's predictions beside every recorded run: the error of each latency, and whether the plan that it ranks first was the
// fastest.   npx tsx bench/planner.ts [--fit] [--runs]
// --runs lists each run. --fit also fits the coefficients anew, and tells the error of each run that the others alone predict.
// bench/planner/runs.json has the runs, from bench/results and bench/NOTES.md. `old` names a kernel that has changed since: such runs
// are counted apart, for the planner knows today's kernels.
import { parseArgs } from "node:util";
import { type Coefficients, coefficients, predict } from "../src/plan/planner/predict.js";
import { type RecordedRun as Run, recordedRuns } from "./planner/recorded.js";

const runs = await recordedRuns();
const { values } = parseArgs({ options: { fit: { type: "boolean" }, runs: { type: "boolean" } } });

function predicted({ operations, setting }: Run, fitted: Coefficients): number {
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
