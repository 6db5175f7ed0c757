/** Percentile of a sample by linear interpolation between its order statistics; fraction is 0.5 for the median. */
export function percentile(values: readonly number[], fraction: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const position = (sorted.length - 1) * fraction;
  const below = sorted[Math.floor(position)] ?? Number.NaN;
  const above = sorted[Math.ceil(position)] ?? Number.NaN;
  return below + (above - below) * (position - Math.floor(position));
}

export interface Latency {
  median: number;
  p10: number;
  p90: number;
}

export function latencyOf(milliseconds: readonly number[]): Latency {
  return {
    median: percentile(milliseconds, 0.5),
    p10: percentile(milliseconds, 0.1),
    p90: percentile(milliseconds, 0.9),
  };
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

export function mean(values: readonly number[]): number {
  return sum(values) / values.length;
}

export interface Difference {
  meanAbs: number;
  maxAbs: number;
  /** Standard deviation of the absolute difference. */
  stdAbs: number;
  /** ‖actual - expected‖ / ‖expected‖. */
  relL2: number;
}

/** How far two tensors of equal length are apart, in float64. */
export function difference(actual: Float32Array, expected: Float32Array): Difference {
  let sum = 0;
  let squares = 0;
  let expectedSquares = 0;
  let maxAbs = 0;
  for (let i = 0; i < expected.length; i++) {
    const e = expected[i] ?? Number.NaN;
    const d = Math.abs((actual[i] ?? Number.NaN) - e);
    sum += d;
    squares += d * d;
    expectedSquares += e * e;
    if (!(d <= maxAbs)) maxAbs = d;
  }
  const n = expected.length;
  const meanAbs = sum / n;
  // A sum of squares about the mean would be exact too, at the price of a second pass; the values here are all of one size.
  const stdAbs = Math.sqrt(Math.max(0, squares / n - meanAbs * meanAbs));
  const relL2 = squares === 0 ? 0 : Math.sqrt(squares / expectedSquares);
  return { meanAbs, maxAbs, stdAbs, relL2 };
}
