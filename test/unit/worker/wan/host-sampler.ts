import type { SamplingPlan } from "../../../../src/sampling/scheduler.js";
import type { SolverTensor, Term } from "../../../../src/sampling/solver-steps.js";

/**
 * Runs a sampling plan on host arrays: float32 state, each update accumulated in float64 and rounded once when stored.
 * The oracle of the device's sampler, which does the same with its own tensors: `x0` and `corrected` (if any) then `next`, all from the old tensors.
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

  /**
   * Takes the model's output (the velocity) for `sample` at the current timestep, and noise where the step draws some; returns the next
   * sample.
   */
  step(velocity: Float32Array, noise?: Float32Array): Float32Array {
    const step = this.plan.steps[this.#step];
    if (step === undefined) throw new Error(`All ${this.plan.steps.length} sampling steps are done.`);
    if (velocity.length !== this.#sample.length)
      throw new Error(`The model output has ${velocity.length} values, but the sample has ${this.#sample.length}.`);
    const tensors = { ...this.#history, sample: this.#sample, velocity, ...(noise && { noise }) };
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
