import { DitrunError, exitCodes } from "../protocol/failure.js";
import type { Plan } from "../protocol/plan.js";
import { describeDtypes, planPrecision } from "./plan.js";
import { type Difference, difference } from "./statistics.js";
import { formatTable } from "./table.js";

/**
 * Largest relative L2 error that passes, by the coarsest arithmetic of the plan.
 * fp32: a float32 forward summed in another order stays below 1e-6 per layer chain; a mistake in a split is above 1e-3.
 * bf16: eight bits of mantissa round by up to 2^-9 per stored tensor; over the depth of these models that adds up to about 1 %.
 * e4m3: three bits round by up to 2^-4; scaled per row or block, errors average out to a few percent of the output.
 */
export const tolerances = { fp32: 1e-5, bf16: 0.02, e4m3: 0.1 } as const;

export interface AccuracyResult {
  plan: string;
  /** The plan's dtype, and which parts are in e4m3. */
  dtypes: string;
  /** Null where the output holds values that are not finite. */
  meanAbs: number | null;
  maxAbs: number | null;
  stdAbs: number | null;
  relL2: number | null;
  tolerance: number;
  /** Values of the output that are NaN or infinite. */
  nonFinite: number;
  pass: boolean;
}

export interface OutputTensor {
  shape: readonly number[];
  data: Float32Array;
}

/**
 * Compares a plan's output with the expected one.
 * @throws DitrunError when the shapes differ, or when what was expected is not finite.
 */
export function compareOutputs(plan: Plan, actual: OutputTensor, expected: OutputTensor): AccuracyResult {
  if (actual.shape.join() !== expected.shape.join()) {
    throw new DitrunError(
      `The output of plan ${plan.name} has shape [${actual.shape.join(", ")}], the reference [${expected.shape.join(", ")}].`,
    );
  }
  const bad = countNonFinite(expected.data);
  if (bad > 0) {
    throw new DitrunError(
      `The reference for plan ${plan.name} holds ${bad} values that are NaN or infinite, so nothing can be compared with it.`,
      exitCodes.mismatch,
    );
  }
  const tolerance = tolerances[planPrecision(plan)];
  const nonFinite = countNonFinite(actual.data);
  const nothing = { meanAbs: null, maxAbs: null, stdAbs: null, relL2: null };
  const measured: Difference | undefined = nonFinite === 0 ? difference(actual.data, expected.data) : undefined;
  const pass = measured !== undefined && measured.relL2 <= tolerance;
  return { plan: plan.name ?? "", dtypes: describeDtypes(plan), ...(measured ?? nothing), tolerance, nonFinite, pass };
}

function countNonFinite(data: Float32Array): number {
  let count = 0;
  for (const value of data) if (!Number.isFinite(value)) count++;
  return count;
}

/** A row per plan, and a sentence for each that failed. */
export function accuracyTable(results: readonly AccuracyResult[], reference: string): string {
  const number = (value: number | null) => (value === null ? "NaN" : value.toExponential(2));
  const head = ["plan", "dtypes", "mean abs", "max abs", "std abs", "rel L2", "tolerance", ""];
  const rows = results.map(({ plan, dtypes, meanAbs, maxAbs, stdAbs, relL2, tolerance, pass }) => {
    return [plan, dtypes, ...[meanAbs, maxAbs, stdAbs, relL2].map(number), String(tolerance), pass ? "pass" : "FAIL"];
  });
  const failures = results.filter(({ pass }) => !pass).map(failureSentence);
  return [`Compared with ${reference}`, formatTable(head, rows), ...failures].join("\n");
}

function failureSentence({ plan, nonFinite, relL2, tolerance }: AccuracyResult): string {
  if (nonFinite > 0) return `The output of plan ${plan} holds ${nonFinite} values that are NaN or infinite.`;
  return `The output of plan ${plan} is off by a relative L2 of ${relL2?.toExponential(2)}, above its tolerance of ${tolerance}.`;
}
