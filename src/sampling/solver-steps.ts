/**
 * The tensors that a step's updates combine:
 * `sample` the model's input and `velocity` its output at this step; `previousX0`, `olderX0` the data predictions of the
 * two steps before; `previousCorrected` the sample of the step before, after its correction; `noise` standard normal numbers that are
 * drawn for this step. A step with noise has no `olderX0`.
 */
export type SolverTensor = "sample" | "velocity" | "previousX0" | "olderX0" | "previousCorrected" | "noise";

export interface Term {
  readonly coefficient: number;
  readonly tensor: SolverTensor;
}

/** One step's updates, each a sum of coefficient · tensor over tensors that exist before the step. */
export interface SolverStep {
  /** The data prediction, `previousX0` of the next step. */
  readonly x0: readonly Term[];
  /** The corrected sample, `previousCorrected` of the next step; absent where the sample stays as it is. */
  readonly corrected?: readonly Term[];
  /** The next step's sample. */
  readonly next: readonly Term[];
}

/** A linear combination under construction: coefficients by tensor, in float64. */
type Combination = Partial<Record<SolverTensor, number>>;

function sum(...parts: readonly (readonly [factor: number, combination: Combination])[]): Combination {
  const total: Combination = {};
  for (const [factor, combination] of parts)
    for (const { coefficient, tensor } of terms(combination))
      total[tensor] = (total[tensor] ?? 0) + factor * coefficient;
  return total;
}

const tensorNames = ["sample", "velocity", "previousX0", "olderX0", "previousCorrected", "noise"] as const;

function terms(combination: Combination): Term[] {
  return tensorNames.flatMap((tensor) => {
    const coefficient = combination[tensor] ?? 0;
    return coefficient === 0 ? [] : [{ coefficient, tensor }];
  });
}

/** λ = ln(α/σ) with α = 1 − σ: −∞ at pure noise, +∞ at σ = 0. */
const logSnr = (sigma: number) => Math.log(1 - sigma) - Math.log(sigma);

/** Flow prediction: x0 = sample − σ·velocity. */
const dataPrediction = (sigma: number): Combination => ({ sample: 1, velocity: -sigma });

function at(sigmas: ArrayLike<number>, i: number): number {
  const sigma = sigmas[i];
  if (sigma === undefined) throw new RangeError(`There is no noise level ${i} among ${sigmas.length}.`);
  return sigma;
}

/** Steps along the velocity: x' = x + (σ' − σ) v. `sigmas`: [steps + 1], ending in 0. */
export function euler(sigmas: ArrayLike<number>): SolverStep[] {
  return Array.from({ length: sigmas.length - 1 }, (_, i) => {
    const [sigma, nextSigma] = [at(sigmas, i), at(sigmas, i + 1)];
    return { x0: terms(dataPrediction(sigma)), next: terms({ sample: 1, velocity: nextSigma - sigma }) };
  });
}

/**
 * Steps of multistep consistency sampling: x0 = x − σv, then x' = (1 − σ') x0 + σ' · fresh noise. `sigmas`: [steps + 1], ending in 0.
 * Formula: arXiv 2303.01469, algorithm 1, for α = 1 − σ; so DMD2 (arXiv 2405.14867), CausVid and rCM sample.
 */
export function renoise(sigmas: ArrayLike<number>): SolverStep[] {
  return Array.from({ length: sigmas.length - 1 }, (_, i) => {
    const nextSigma = at(sigmas, i + 1);
    const x0 = dataPrediction(at(sigmas, i));
    return { x0: terms(x0), next: terms(sum([1 - nextSigma, x0], [nextSigma, { noise: 1 }])) };
  });
}

/**
 * Steps of DPM-Solver++(2M) for flow matching, midpoint form, first order at the first and the last step.
 * `sigmas`: [steps + 1], ending in 0. Formula: arXiv 2211.01095, algorithm 2; as in wan/utils/fm_solvers.py.
 */
export function dpmSolverPlusPlus(sigmas: ArrayLike<number>): SolverStep[] {
  return Array.from({ length: sigmas.length - 1 }, (_, i) => {
    const [sigma, nextSigma] = [at(sigmas, i), at(sigmas, i + 1)];
    const h = logSnr(nextSigma) - logSnr(sigma);
    const x0 = dataPrediction(sigma);
    const weight = -(1 - nextSigma) * Math.expm1(-h);
    const firstOrder = sum([nextSigma / sigma, { sample: 1 }], [weight, x0]);
    if (i === 0 || i === sigmas.length - 2) return { x0: terms(x0), next: terms(firstOrder) };
    // From pure noise the earlier step is infinitely long in λ: 1/r is 0 and the step is of first order.
    const r = (logSnr(sigma) - logSnr(at(sigmas, i - 1))) / h;
    const slope = sum([1 / r, x0], [-1 / r, { previousX0: 1 }]);
    return { x0: terms(x0), next: terms(sum([1, firstOrder], [0.5 * weight, slope])) };
  });
}

/**
 * Steps of UniPC-2 (B(h) = e^h − 1, "bh2") for flow matching: every step but the first first corrects its sample with
 * the new data prediction, then predicts the next; order 1 at the first and the last step.
 * `sigmas`: [steps + 1], ending in 0. Formula: arXiv 2302.04867, algorithms 5 and 6; as in wan/utils/fm_solvers_unipc.py.
 */
export function uniPc(sigmas: ArrayLike<number>): SolverStep[] {
  const steps = sigmas.length - 1;
  const order = (i: number) => Math.min(2, i + 1, steps - i);
  return Array.from({ length: steps }, (_, i) => {
    const x0 = dataPrediction(at(sigmas, i));
    if (i === 0) return { x0: terms(x0), next: terms(predict(sigmas, i, order(i), { sample: 1 }, x0)) };
    const corrected = correct(sigmas, i, order(i - 1), x0);
    return {
      x0: terms(x0),
      corrected: terms(corrected),
      next: terms(predict(sigmas, i, order(i), corrected, x0)),
    };
  });
}

/** UniP: from the corrected sample at σ_i to the sample at σ_{i+1}. */
function predict(sigmas: ArrayLike<number>, i: number, order: number, from: Combination, x0: Combination): Combination {
  const [sigma, nextSigma] = [at(sigmas, i), at(sigmas, i + 1)];
  const h = logSnr(nextSigma) - logSnr(sigma);
  const bh = Math.expm1(-h);
  const weight = -(1 - nextSigma) * bh;
  const firstOrder = sum([nextSigma / sigma, from], [weight, x0]);
  if (order === 1) return firstOrder;
  const r = (logSnr(at(sigmas, i - 1)) - logSnr(sigma)) / h;
  // At order 2 the predictor's weight is fixed at 1/2.
  return sum([1, firstOrder], [(0.5 * weight) / r, { previousX0: 1 }], [(-0.5 * weight) / r, x0]);
}

/** UniC: the sample at σ_i once more, from the corrected one at σ_{i−1} and the data predictions up to x0 at σ_i. */
function correct(sigmas: ArrayLike<number>, i: number, order: number, x0: Combination): Combination {
  const [before, sigma] = [at(sigmas, i - 1), at(sigmas, i)];
  const h = logSnr(sigma) - logSnr(before);
  const bh = Math.expm1(-h);
  const weight = -(1 - sigma) * bh;
  const m0: Combination = { previousX0: 1 };
  const base = sum([sigma / before, { previousCorrected: 1 }], [weight, m0]);
  const change = sum([1, x0], [-1, m0]);
  if (order === 1) return sum([1, base], [0.5 * weight, change]);

  // Weights ρ of the two differences: [1 1; r 1] ρ = b, b_k = k!·φ_{k+1}(−h)·(−h) / B(h).
  const r = (logSnr(at(sigmas, i - 2)) - logSnr(before)) / h;
  const phi1 = bh / -h - 1;
  const phi2 = phi1 / -h - 0.5;
  const [b1, b2] = [phi1 / bh, (2 * phi2) / bh];
  const rho0 = (b1 - b2) / (1 - r);
  const rho1 = b1 - rho0;
  const slope = sum([1 / r, { olderX0: 1 }], [-1 / r, m0]);
  return sum([1, base], [weight * rho0, slope], [weight * rho1, change]);
}
