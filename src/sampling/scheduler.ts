import { DitrunError } from "../protocol/failure.js";
import { dpmSolverPlusPlus, type SolverStep, type SolverTensor, type Term, uniPc } from "./solver-steps.js";

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
      `The number of sampling steps must be a whole number from 1 to ${trainTimesteps}, not ${steps}.`,
    );
  if (!(shift > 0 && Number.isFinite(shift)))
    throw new DitrunError(`The sampling shift must be a positive number (Wan uses 3 to 8), not ${shift}.`);
  // UniPC begins at the last training noise level, a float32; DPM-Solver++ at pure noise.
  const first = solver === "unipc" ? Math.fround(1 - 1 / trainTimesteps) : 1;
  const levels = Array.from({ length: steps }, (_, i) => {
    const sigma = first - (first / steps) * i;
    return (shift * sigma) / (1 + (shift - 1) * sigma);
  });
  const sigmas = Float32Array.of(...levels, 0);
  const timesteps = levels.map((sigma) => Math.trunc(sigma * trainTimesteps));
  return { sigmas, timesteps, steps: solver === "unipc" ? uniPc(sigmas) : dpmSolverPlusPlus(sigmas) };
}

/**
 * Runs a sampling plan on host arrays: float32 state, each update accumulated in float64 and rounded once when stored.
 * A device does the same with its own tensors: `x0` and `corrected` (if any) then `next`, all from the old tensors.
 */
export class Sampler {
  #step = 0;
  #sample: Float32Array;
  readonly #history: Partial<Record<SolverTensor, Float32Array>> = {};

  /** `noise` is the starting sample, of any shape; it is copied. */
  constructor(
    readonly plan: SamplingPlan,
    noise: Float32Array,
  ) {
    this.#sample = noise.slice();
  }

  /** The sample that the next model evaluation takes. */
  get sample(): Float32Array {
    return this.#sample;
  }

  /** Takes the model's output (the velocity) for `sample` at the current timestep; returns the next sample. */
  step(velocity: Float32Array): Float32Array {
    const step = this.plan.steps[this.#step];
    if (step === undefined) throw new DitrunError(`All ${this.plan.steps.length} sampling steps are done.`);
    if (velocity.length !== this.#sample.length)
      throw new DitrunError(
        `The model output has ${velocity.length} values, but the sample has ${this.#sample.length}.`,
      );
    const tensors = { ...this.#history, sample: this.#sample, velocity };
    const x0 = combine(step.x0, tensors);
    const corrected = step.corrected === undefined ? this.#sample : combine(step.corrected, tensors);
    const next = combine(step.next, tensors);
    if (this.#history.previousX0 !== undefined) this.#history.olderX0 = this.#history.previousX0;
    this.#history.previousX0 = x0;
    this.#history.previousCorrected = corrected;
    this.#sample = next;
    this.#step += 1;
    return next;
  }
}

/** Σ coefficient · tensor. */
function combine(terms: readonly Term[], tensors: Partial<Record<SolverTensor, Float32Array>>): Float32Array {
  const parts = terms.map(({ coefficient, tensor }) => {
    const values = tensors[tensor];
    if (values === undefined) throw new Error(`The solver's step uses ${tensor} before it exists.`);
    return { coefficient, values };
  });
  const out = new Float32Array(parts[0]?.values.length ?? 0);
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (const { coefficient, values } of parts) sum += coefficient * (values[i] ?? 0);
    out[i] = sum;
  }
  return out;
}
