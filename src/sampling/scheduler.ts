import { DitrunError } from "../failure.js";
import { dpmSolverPlusPlus, type SolverStep, uniPc } from "./solver-steps.js";

export const solverNames = ["unipc", "dpm++"] as const;
export type SolverName = (typeof solverNames)[number];

/** Training timesteps of the published models. */
const trainTimesteps = 1000;

/** A sampling schedule and its solver's steps: plain numbers, no tensors. */
export interface SamplingPlan {
  /** Noise levels, [steps + 1], float32 values, from about 1 down to 0. */
  readonly sigmas: Float32Array;
  /** What the transformer is given at each step: whole numbers in [0, 1000]. */
  readonly timesteps: readonly number[];
  readonly steps: readonly SolverStep[];
}

/**
 * The schedule and update coefficients of one sampling run, as Wan 2.1 uses its two solvers (order 2, final sigma 0).
 * `shift` ≥ 1 moves steps towards high noise: σ' = shift·σ / (1 + (shift − 1)·σ).
 * Throws DitrunError for a number of steps or a shift that no schedule has.
 * Source: set_timesteps in wan/utils/fm_solvers_unipc.py, get_sampling_sigmas in wan/utils/fm_solvers.py.
 */
export function planSampling(solver: SolverName, steps: number, shift: number): SamplingPlan {
  if (!Number.isInteger(steps) || steps < 1 || steps > trainTimesteps)
    throw new DitrunError(
      "ERR_SAMPLING",
      `The number of sampling steps must be a whole number from 1 to ${trainTimesteps}, not ${steps}.`,
    );
  if (!(shift > 0 && Number.isFinite(shift)))
    throw new DitrunError(
      "ERR_SAMPLING",
      `The sampling shift must be a positive number (Wan uses 3 to 8), not ${shift}.`,
    );
  // UniPC begins at the last training noise level, a float32; DPM-Solver++ at pure noise.
  const first = solver === "unipc" ? Math.fround(1 - 1 / trainTimesteps) : 1;
  const levels = Array.from({ length: steps }, (_, i) => {
    const sigma = first - (first / steps) * i;
    return (shift * sigma) / (1 + (shift - 1) * sigma);
  });
  const sigmas = Float32Array.of(...levels, 0);
  const timesteps = levels.map((sigma) => Math.trunc(sigma * trainTimesteps));
  const plan = { sigmas, timesteps, steps: solver === "unipc" ? uniPc(sigmas) : dpmSolverPlusPlus(sigmas) };
  const terms = plan.steps.flatMap(({ x0, corrected = [], next }) => [...x0, ...corrected, ...next]);
  if (terms.every(({ coefficient }) => Number.isFinite(coefficient))) return plan;
  throw new DitrunError(
    "ERR_SAMPLING",
    `The sampling shift ${shift} leaves steps among ${steps} no difference of noise to go: choose one nearer to Wan's 3 to 8.`,
  );
}
