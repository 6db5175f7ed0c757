import { afterEach, describe, expect, it } from "vitest";
import { BF16, check, download, F32, fillRandom, freeAll, lastError, poisoned, rounded } from "./module.js";

afterEach(freeAll);

/** Philox4x32-10 in integers of any size. */
function philox(key: readonly [bigint, bigint], counter: readonly [bigint, bigint, bigint, bigint]): bigint[] {
  const low = 0xffffffffn;
  let [k0, k1] = key;
  let [c0, c1, c2, c3] = counter;
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c0;
    const p1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & low, (p0 >> 32n) ^ c3 ^ k1, p0 & low];
    k0 = (k0 + 0x9e3779b9n) & low;
    k1 = (k1 + 0xbb67ae85n) & low;
  }
  return [c0, c1, c2, c3];
}

const f = Math.fround;

/** u in (0, 1] and v in (-½, ½) of ditrun.h, both exact. */
function unitsOf(words: readonly number[]): { u: number; v: number } {
  const [w0 = 0, w1 = 0, w2 = 0, w3 = 0] = words;
  return { u: (w0 * 2 ** 21 + (w1 >>> 11) + 1) * 2 ** -53, v: ((w2 | 0) * 2 ** 21 + (w3 >>> 11) + 0.5) * 2 ** -53 };
}

const c = 0x16a09e * 2 ** -21;

const factorial = (n: number): number => (n < 2 ? 1 : n * factorial(n - 1));

/** The normal number of ditrun.h, step by step in float64. */
function normal(words: readonly number[]): number {
  const { u, v } = unitsOf(words);
  let e = 0;
  while (u / 2 ** e < c) e--;
  const m = u / 2 ** e;
  const s = (m - 1) / (m + 1);
  const x = Math.PI * v;
  let logs = 1 / 17;
  let sines = 1 / factorial(17);
  for (let odd = 15; odd > 0; odd -= 2) {
    logs = logs * (s * s) + 1 / odd;
    sines = sines * (x * x) + (odd % 4 === 1 ? 1 : -1) / factorial(odd);
  }
  return f(Math.sqrt(-2 * (e * Math.LN2 + 2 * s * logs)) * (x * sines));
}

interface Tensor {
  seed: bigint;
  tensorId: number;
  distribution: number;
  amplitude: number;
  offset: number;
}

/** The value that ditrun.h defines for element `index`, every operation rounded to float32. */
function element(t: Tensor, index: bigint): number {
  const low = 0xffffffffn;
  const words = philox([t.seed & low, t.seed >> 32n], [index & low, index >> 32n, BigInt(t.tensorId), 0n]).map(Number);
  const amplitude = f(t.amplitude);
  if (t.distribution === 0) return f(f(amplitude * (((words[0] ?? 0) >>> 8) * 2 ** -23 - 1)) + f(t.offset));
  return f(f(amplitude * normal(words)) + f(t.offset));
}

function fill(t: Tensor, rows: [number, number], columns: [number, number], fullColumns: number, outDtype = F32) {
  const [row0, rowCount] = rows;
  const [column0, columnCount] = columns;
  const out = poisoned(rowCount * columnCount, outDtype);
  const place = { row0, column0, rows: rowCount, columns: columnCount, fullColumns, ldo: columnCount };
  check(fillRandom({ ...t, ...place, out, outDtype }));
  return download(out, rowCount * columnCount, outDtype);
}

describe("ditrun_fill_random on the CPU", () => {
  it("the reference itself gives the known answers of Random123", () => {
    const hex = (words: bigint[]) => words.map((word) => word.toString(16).padStart(8, "0")).join(" ");
    const ones = 0xffffffffn;
    expect(hex(philox([0n, 0n], [0n, 0n, 0n, 0n]))).toBe("6627e8d5 e169c58d bc57ac4c 9b00dbd8");
    expect(hex(philox([ones, ones], [ones, ones, ones, ones]))).toBe("408f276d 41c83b0e a20bc7c6 6d5451fd");
  });

  it("starts with the known answer: word 6627e8d5 as a uniform number", () => {
    const plain = { seed: 0n, tensorId: 0, distribution: 0, amplitude: 1, offset: 0 };
    expect(fill(plain, [0, 1], [0, 1], 1)[0]).toBe(0x6627e8 / 2 ** 23 - 1);
  });

  for (const distribution of [0, 1]) {
    it(`distribution ${distribution} has the bits that the header defines`, () => {
      const t = { seed: 0x1234_5678_9abc_def0n, tensorId: 0xfffffff1, distribution, amplitude: 0.0361, offset: 1.7 };
      const got = fill(t, [3, 5], [2, 7], 11);
      got.forEach((x, index) => {
        expect(x).toBe(element(t, BigInt((3 + Math.floor(index / 7)) * 11 + 2 + (index % 7))));
      });
      const low = fill(t, [3, 5], [2, 7], 11, BF16);
      expect(low).toEqual(got.map((x) => rounded(x, BF16)));
    });
  }

  it("counts elements beyond 32 bits", () => {
    const t = { seed: 7n, tensorId: 1, distribution: 1, amplitude: 1, offset: 0 };
    const index = 3_000_000n * 5_000n + 1n;
    expect(fill(t, [3_000_000, 1], [1, 1], 5_000)[0]).toBe(element(t, index));
  });

  it("gives every layout its part of one tensor, with the right spread", () => {
    const t = { seed: 42n, tensorId: 9, distribution: 1, amplitude: 2, offset: -1 };
    const whole = fill(t, [0, 64], [0, 3001], 3001);
    const part = fill(t, [10, 3], [1500, 1200], 3001);
    part.forEach((x, index) => {
      if (x !== whole[(10 + Math.floor(index / 1200)) * 3001 + 1500 + (index % 1200)])
        throw new Error(`${index} differs`);
    });
    const mean = whole.reduce((sum, x) => sum + x) / whole.length;
    const variance = whole.reduce((sum, x) => sum + (x - mean) ** 2, 0) / whole.length;
    expect(Math.abs(mean + 1)).toBeLessThan(0.02);
    expect(Math.abs(Math.sqrt(variance) - 2)).toBeLessThan(0.02);
  });

  it("is the transform of Box and Muller to the last bit of a float32", () => {
    const got = fill({ ...standard, seed: 3n }, [0, 1], [0, 5000], 5000);
    got.forEach((x, index) => {
      const { u, v } = unitsOf(philox([3n, 0n], [BigInt(index), 0n, 5n, 0n]).map(Number));
      const exact = Math.sqrt(-2 * Math.log(u)) * Math.sin(Math.PI * v);
      expect(Math.abs(x - exact)).toBeLessThanOrEqual(Math.abs(exact) * 2 ** -24 * 1.001);
    });
  });

  it("refuses a part that lies outside of the tensor", () => {
    const place = { seed: 0, rows: 1, columns: 4, column0: 2, fullColumns: 5, ldo: 4, out: 256 };
    expect(fillRandom(place)).toBe(1);
    expect(lastError()).toMatch(/columns 2 to 6 do not lie in a tensor of 5 columns/);
  });
});

const standard = { seed: 0n, tensorId: 5, distribution: 1, amplitude: 1, offset: 0 };
const draw = (seed: bigint, count: number, tensorId = 5) =>
  fill({ ...standard, seed, tensorId }, [0, 1], [0, count], count);

/** P(X ≤ x) of a standard normal number, to about 1e-15 of it: a series near zero, a continued fraction in the tails. */
function normalCdf(x: number): number {
  if (x > 0) return 1 - normalCdf(-x);
  const density = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  if (x > -3) {
    let sum = x;
    for (let term = x, n = 3; Math.abs(term) > 1e-17; n += 2) sum += term *= (x * x) / n;
    return 0.5 + density * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / (-x + fraction);
  return density / (-x + fraction);
}

// All draws are of fixed seeds, so these pass or fail for good. Limits are about four standard errors.
describe("normal numbers on the CPU are Gaussian", () => {
  const count = 2 ** 22;
  const sample = draw(0x9e37_79b9_7f4a_7c15n, count);

  it("has the moments of a normal distribution", () => {
    const sums = [0, 0, 0, 0, 0, 0, 0];
    for (const x of sample) {
      for (let power = 1, product = x; power <= 6; power++, product *= x) sums[power] = (sums[power] ?? 0) + product;
    }
    // E x^k, and the variance of x^k.
    for (const [power, mean, variance] of [
      [1, 0, 1],
      [2, 1, 2],
      [3, 0, 15],
      [4, 3, 96],
      [6, 15, 10_395 - 225],
    ] as const) {
      const error = Math.abs((sums[power] ?? Number.NaN) / count - mean);
      expect(error, `moment ${power}`).toBeLessThan(4 * Math.sqrt(variance / count));
    }
  });

  it.each([-5, -4, -3, -2, 0.001])("has as many values beyond %d as it should, on both sides", (x) => {
    const expected = count * normalCdf(-Math.abs(x));
    for (const sign of [-1, 1]) {
      let found = 0;
      for (const value of sample) if (sign * value > Math.abs(x)) found++;
      expect(Math.abs(found - expected)).toBeLessThan(4 * Math.sqrt(expected));
    }
  });

  it("passes the test of Kolmogorov and Smirnov", () => {
    const values = Float64Array.from(sample.slice(0, 2 ** 20)).sort();
    let distance = 0;
    values.forEach((x, index) => {
      const p = normalCdf(x);
      distance = Math.max(distance, (index + 1) / values.length - p, p - index / values.length);
    });
    expect(distance * Math.sqrt(values.length)).toBeLessThan(1.63); // exceeded by one sample in a hundred
  });

  /** Σ a_i b_(i + lag), in standard errors of independent values. */
  const correlation = (a: Float64Array, b: Float64Array, lag = 0) => {
    const length = Math.min(a.length, b.length) - lag;
    let sum = 0;
    for (let i = 0; i < length; i++) sum += (a[i] ?? Number.NaN) * (b[i + lag] ?? Number.NaN);
    return Math.abs(sum) / Math.sqrt(length);
  };

  it("has neighbours that know nothing of each other, in value and in size", () => {
    const values = sample.slice(0, 2 ** 20);
    const sizes = values.map((x) => (x * x - 1) / Math.SQRT2);
    for (const lag of [1, 2, 3, 4, 16, 104, 6240]) {
      expect(correlation(values, values, lag), `lag ${lag}`).toBeLessThan(4);
      expect(correlation(sizes, sizes, lag), `lag ${lag}`).toBeLessThan(4);
    }
  });

  it("has seeds and tensors that know nothing of each other, all 64 bits of a seed counting", () => {
    const few = 2 ** 16;
    const seeds = [0n, 1n, 2n ** 32n, 2n ** 32n + 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 64n - 1n];
    const draws = [...seeds.map((seed) => draw(seed, few)), draw(0n, few, 6)];
    draws.forEach((a, i) => {
      for (const b of draws.slice(i + 1)) expect(correlation(a, b)).toBeLessThan(4);
    });
  });
});
