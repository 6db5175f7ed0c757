import { afterEach, describe, expect, it } from "vitest";
import {
  at,
  BF16,
  check,
  download,
  E4M3,
  F16,
  F32,
  freeAll,
  lastError,
  maxDifference,
  poisoned,
  raw,
  relativeL2,
  rmsNorm,
  sequence,
  stream,
  upload,
} from "./module.js";

afterEach(freeAll);

const all = (count: number, value: (index: number) => number) =>
  Float64Array.from({ length: count }, (_, i) => value(i));
const dtypes = [F32, BF16, F16];
const tolerance = (dtype: number) => (dtype === F32 ? 1e-6 : dtype === F16 ? 4e-4 : 3e-3);
/** A weight of f16 there is none: it is float32 then. */
const weightOf = (dtype: number) => (dtype === F16 ? F32 : dtype);

describe("ditrun_rms_norm and ditrun_row_sum_squares on the CPU", () => {
  // As large as the mean of squares: it matters where it is added.
  const [rows, headDim, heads, epsilon] = [19, 22, 6, 0.25];
  const norm = (args: Parameters<typeof rmsNorm>[0]) => rmsNorm({ epsilon, ...args });
  const columns = heads * headDim;
  const [ldx, ldo] = [columns + 4, columns + 2];
  const silu = (value: number) => value / (1 + Math.exp(-value));

  /** y = silu or identity of x / rms · weight; then pairs turned by rope. */
  function reference(x: Float64Array, weight: Float64Array, rope: Float64Array | undefined, activation: number) {
    const y = all(rows * columns, (index) => {
      const row = x.subarray(Math.floor(index / columns) * ldx).subarray(0, columns);
      const mean = row.reduce((sum, value) => sum + value * value, 0) / columns;
      const value = (at(row, index % columns) / Math.sqrt(mean + epsilon)) * at(weight, index % columns);
      return activation === 3 ? silu(value) : value;
    });
    if (!rope) return y;
    return y.map((value, index) => {
      const turn = Math.floor(index / columns) * headDim + ((index % columns) % headDim);
      const even = turn % 2 === 0;
      const [cos, sin] = [at(rope, even ? turn : turn - 1), at(rope, even ? turn + 1 : turn)];
      return even ? value * cos - at(y, index + 1) * sin : at(y, index - 1) * sin + value * cos;
    });
  }
  const input = (dtype: number) => {
    const x = sequence(rows * ldx, dtype, 1, 3);
    for (let row = 0; row < rows; row++) x.fill(Number.NaN, row * ldx + columns, (row + 1) * ldx);
    return x;
  };
  const tight = (x: Float64Array) => all(rows * columns, (i) => at(x, Math.floor(i / columns) * ldo + (i % columns)));

  for (const dtype of dtypes) {
    for (const [withRope, activation] of [
      [false, 0],
      [true, 0],
      [false, 3],
    ] as const) {
      it(`normalises, dtype ${dtype}, ${withRope ? "with" : "without"} rotation, activation ${activation}`, () => {
        const x = input(dtype);
        const weight = sequence(columns, weightOf(dtype), 2);
        const angles = sequence((rows * headDim) / 2, F32, 3, 4);
        const rope = all(rows * headDim, (i) =>
          Math.fround(i % 2 === 0 ? Math.cos(at(angles, i / 2)) : Math.sin(at(angles, (i - 1) / 2))),
        );
        const out = poisoned(rows * ldo, dtype);
        const types = { xDtype: dtype, weightDtype: weightOf(dtype), outDtype: dtype, activation };
        const turned = withRope ? { rope: upload(rope, F32), headDim } : {};
        const sizes = { ldx, ldo, rows, columns };
        check(
          norm({ x: upload(x, dtype), weight: upload(weight, weightOf(dtype)), out, ...sizes, ...types, ...turned }),
        );
        const stored = download(out, rows * ldo, dtype);
        const want = reference(x, weight, withRope ? rope : undefined, activation);
        expect(relativeL2(tight(stored), want)).toBeLessThan(tolerance(dtype));
        for (let row = 0; row < rows; row++) expect(stored[row * ldo + columns]).toBeNaN();
      });
    }

    it(`leaves room between groups of rows, the last of which may be short, dtype ${dtype}`, () => {
      const [groupRows, groupStride] = [7, 7 * ldo + 11];
      const sizes = { x: upload(input(dtype), dtype), ldx, ldo, rows, columns, xDtype: dtype, outDtype: dtype };
      const together = poisoned(rows * ldo, dtype);
      check(norm({ ...sizes, out: together }));
      const size = 3 * groupStride;
      const out = poisoned(size, dtype);
      check(norm({ ...sizes, out, groupRows, groupStride }));
      const want = new Float64Array(size).fill(Number.NaN);
      const oneGroup = download(together, rows * ldo, dtype);
      for (let row = 0; row < rows; row++) {
        const start = Math.floor(row / groupRows) * groupStride + (row % groupRows) * ldo;
        want.set(oneGroup.subarray(row * ldo, row * ldo + columns), start);
      }
      expect(download(out, size, dtype)).toEqual(want);
    });

    it(`quantises each head with a scale of its own, rounded once, dtype ${dtype}`, () => {
      const x = upload(input(dtype), dtype);
      const weight = upload(sequence(columns, F32, 2), F32);
      const rope = upload(sequence(rows * headDim, F32, 3), F32);
      const sizes = { x, weight, rope, headDim, ldx, rows, columns, xDtype: dtype };
      const exact = poisoned(rows * columns, F32);
      check(norm({ ...sizes, out: exact, ldo: columns }));
      const [quantized, quantizedScale] = [poisoned(rows * columns, E4M3), poisoned(rows * heads, F32)];
      check(norm({ ...sizes, quantized, quantizedScale }));
      // The same bits as heads quantised as rows, from float32.
      const [out, scale] = [poisoned(rows * columns, E4M3), poisoned(rows * heads, F32)];
      check(raw.quantizeRows(out, scale, exact, headDim, rows * heads, headDim, F32, stream));
      expect(download(quantizedScale, rows * heads, F32)).toEqual(download(scale, rows * heads, F32));
      expect(download(quantized, rows * columns, E4M3)).toEqual(download(out, rows * columns, E4M3));
    });

    if (dtype === F16) continue; // sums of squares are of the transformer, which has none
    it(`normalises some columns by the sum of squares of all, in place, dtype ${dtype}`, () => {
      const x = input(dtype);
      const weight = sequence(columns, F32, 2);
      const want = reference(x, weight, undefined, 0);
      const half = columns / 2;
      const whole = upload(x, dtype);
      const sums = poisoned(rows, F32);
      check(raw.rowSumSquares(sums, whole, ldx, rows, columns, dtype, stream));
      const squares = all(rows, (row) =>
        x.subarray(row * ldx, row * ldx + columns).reduce((sum, value) => sum + value * value, 0),
      );
      expect(relativeL2(download(sums, rows, F32), squares)).toBeLessThan(1e-6);
      const second = whole + half * (dtype === F32 ? 4 : 2);
      const own = { weight: upload(weight.subarray(half), F32), sumSquares: sums, fullColumns: columns };
      const sizes = { ldx, ldo: ldx, rows, columns: half, xDtype: dtype, outDtype: dtype };
      check(norm({ x: second, out: second, ...own, ...sizes }));
      const stored = download(whole, rows * ldx, dtype);
      const got = all(rows * half, (i) => at(stored, Math.floor(i / half) * ldx + half + (i % half)));
      const wanted = all(rows * half, (i) => at(want, Math.floor(i / half) * columns + half + (i % half)));
      expect(relativeL2(got, wanted)).toBeLessThan(tolerance(dtype));
      expect(at(stored, 0)).toBe(at(x, 0));
    });
  }
});

describe("groups of rows that ditrun_rms_norm refuses", () => {
  const sizes = { x: 256, out: 512, ldx: 4, ldo: 5, rows: 6, columns: 4 };
  it.each([
    [{ groupRows: -1 }, /groupRows is -1 but must be 0 or the rows of a group/],
    [{ groupRows: 3, groupStride: 13 }, /groupStride is 13 but a group of 3 rows, 5 apart, has 14 elements/],
    [{ groupRows: 3, groupStride: 14, out: 256 }, /groups of 3 rows need an out other than x/],
    [{ groupRows: 3, groupStride: 14, out: 0, quantized: 512, quantizedScale: 1024, headDim: 4 }, /out is 0 and x 256/],
  ])("%j", (groups, sentence) => {
    expect(rmsNorm({ ...sizes, ...groups })).toBe(1);
    expect(lastError()).toMatch(sentence);
  });
});

describe("ditrun_rms_norm on the CPU", () => {
  it("normalises, weights and activates; a row of zeros stays zeros", () => {
    const [rows, columns, epsilon] = [4, 21, 1e-24];
    const x = sequence(rows * columns, F32, 8).map((value, index) => (index < columns ? 0 : value));
    const weight = sequence(columns, F32, 9);
    const expected = x.map((value, index) => {
      const row = x.subarray(index - (index % columns), index - (index % columns) + columns);
      const mean = row.reduce((sum, one) => sum + one * one, 0) / columns;
      const y = (value / Math.sqrt(mean + epsilon)) * at(weight, index % columns);
      return y / (1 + Math.exp(-y));
    });
    const out = poisoned(x.length, F32);
    const dtypes = { xDtype: F32, weightDtype: F32, outDtype: F32, activation: 3, epsilon };
    const shape = { rows, columns, fullColumns: columns, headDim: 0, ldx: columns, ldo: columns };
    check(rmsNorm({ x: upload(x, F32), weight: upload(weight, F32), out, ...shape, ...dtypes }));
    expect(relativeL2(download(out, x.length, F32), expected)).toBeLessThan(1e-6);
    expect([...download(out, columns, F32)].every((value) => value === 0)).toBe(true);
  });

  it("takes sums of squares made elsewhere, and turns pairs", () => {
    const x = upload([3, 4], F32);
    const out = poisoned(2, F32);
    const sumSquares = upload([100], F32);
    const rope = upload([0.6, 0.8], F32);
    const dtypes = { xDtype: F32, weightDtype: F32, outDtype: F32, activation: 0, epsilon: 0 };
    const shape = { rows: 1, columns: 2, fullColumns: 4, headDim: 2, ldx: 2, ldo: 2 };
    check(rmsNorm({ x, out, sumSquares, rope, ...shape, ...dtypes }));
    // [3, 4] / 5, turned by the angle of cosine 0.6 and sine 0.8.
    expect(
      maxDifference(download(out, 2, F32), [0.6 * 0.6 - 0.8 * 0.8, 0.6 * 0.8 + 0.8 * 0.6].map(Math.fround)),
    ).toBeLessThan(1e-6);
  });
});
