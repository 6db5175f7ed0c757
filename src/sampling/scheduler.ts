import { DitrunError } from "../failure.js";
import { dpmSolverPlusPlus, euler, renoise, type SolverStep, uniPc } from "./solver-steps.js";

export const solverNames = ["unipc", "dpm++", "euler", "renoise"] as const;
export type SolverName = (typeof solverNames)[number];

const solverSteps: Readonly<Record<SolverName, (sigmas: ArrayLike<number>) => SolverStep[]>> = {
  unipc: uniPc,
  "dpm++": dpmSolverPlusPlus,
  euler,
  renoise,
};

/** Training timesteps of the published models. */
const trainTimesteps = 1000;

/** A sampling schedule and its solver's steps: plain numbers, no tensors. */
export interface SamplingPlan {
  /** Noise levels, [steps + 1], float32 values, from about 1 down to 0. */
  readonly sigmas: Float32Array;
  /** What the transformer is given at each step, in [0, 1000]: whole numbers where the published schedule has them. */
  readonly timesteps: readonly number[];
  readonly steps: readonly SolverStep[];
}

/** What a schedule is made of. */
export interface SamplingSettings {
  readonly solver: SolverName;
  readonly steps: number;
  readonly shift: number;
  /** The noise level before each step, instead of steps that are evenly spread and shifted. */
  readonly sigmas?: readonly number[] | undefined;
}

/** As planSampling. @throws DitrunError as it does. */
export function samplingPlan({ solver, steps, shift, sigmas }: SamplingSettings): SamplingPlan {
  if (!sigmas) return planSampling(solver, steps, shift);
  if (sigmas.length !== steps)
    throw new DitrunError("ERR_SAMPLING", `${sigmas.length} noise levels make as many steps, not ${steps}.`);
  const wrong = sigmas.findIndex((sigma, i) => !(sigma > 0 && sigma <= 1 && sigma < (sigmas[i - 1] ?? 2)));
  if (wrong >= 0)
    throw new DitrunError(
      "ERR_SAMPLING",
      `Noise levels must fall from at most 1 and stay above 0, but number ${wrong + 1} is ${sigmas[wrong]} of ${sigmas.join(", ")}.`,
    );
  const timesteps = sigmas.map((sigma) => sigma * trainTimesteps);
  return checked(
    { sigmas: Float32Array.of(...sigmas, 0), timesteps, steps: solverSteps[solver](Float32Array.of(...sigmas, 0)) },
    `The solver ${solver} cannot step through the noise levels ${sigmas.join(", ")}: choose euler, or for unipc begin below 1.`,
  );
}

/**
 * The schedule and update coefficients of one sampling run, as Wan 2.1 uses its two solvers (order 2, final sigma 0), and as distilled
 * models use Euler and renoising: from pure noise, with time steps that are no whole numbers.
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
  // UniPC begins at the last training noise level, a float32; all others at pure noise.
  const first = solver === "unipc" ? Math.fround(1 - 1 / trainTimesteps) : 1;
  const levels = Array.from({ length: steps }, (_, i) => {
    const sigma = first - (first / steps) * i;
    return (shift * sigma) / (1 + (shift - 1) * sigma);
  });
  const sigmas = Float32Array.of(...levels, 0);
  const whole = solver === "unipc" || solver === "dpm++";
  const timesteps = levels.map((sigma) => (whole ? Math.trunc(sigma * trainTimesteps) : sigma * trainTimesteps));
  return checked(
    { sigmas, timesteps, steps: solverSteps[solver](sigmas) },
    `The sampling shift ${shift} leaves steps among ${steps} no difference of noise to go: choose one nearer to Wan's 3 to 8.`,
  );
}

/** @throws DitrunError with this sentence where a coefficient is no number. */
function checked(plan: SamplingPlan, sentence: string): SamplingPlan {
  const terms = plan.steps.flatMap(({ x0, corrected = [], next }) => [...x0, ...corrected, ...next]);
  if (terms.every(({ coefficient }) => Number.isFinite(coefficient))) return plan;
  throw new DitrunError("ERR_SAMPLING", sentence);
}
