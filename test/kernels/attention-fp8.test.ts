import { afterEach, describe, expect, it } from "vitest";
import { coarse, columnsOf, dequantize, keysOf, quantize, type Shape, worst } from "./kv.js";
import {
  at,
  attention,
  BF16,
  check,
  download,
  E4M3,
  F32,
  freeAll,
  lastError,
  maxDifference,
  poisoned,
  raw,
  relativeL2,
  rounded,
  sequence,
  stream,
  upload,
} from "./module.js";

afterEach(freeAll);

/** q [queries, heads, headDim] in e4m3 with a scale per query and head, and what that stands for. */
function quantizeQueries(q: Float64Array, { headDim }: Shape) {
  const rows = q.length / headDim;
  const out = poisoned(q.length, E4M3);
  const scale = poisoned(rows, F32);
  check(raw.quantizeRows(out, scale, upload(q, F32), headDim, rows, headDim, F32, stream));
  const scales = download(scale, rows, F32);
  const values = download(out, q.length, E4M3).map((x, i) => x * at(scales, Math.floor(i / headDim)));
  return { out, scale, values };
}

/** Softmax attention in float64, with what bounds the error of rounded probabilities: Σ p |v - o| and Σ |v - o|, over Σ p. */
function reference(q: Float64Array, k: Float64Array, v: Float64Array, { heads, headDim }: Shape) {
  const columns = heads * headDim;
  const queries = q.length / columns;
  const keys = k.length / columns;
  const o = new Float64Array(q.length);
  const bound = new Float64Array(q.length);
  const lse = new Float64Array(heads * queries);
  for (let head = 0; head < heads; head++) {
    for (let query = 0; query < queries; query++) {
      const scores = Float64Array.from({ length: keys }, (_, key) => {
        let sum = 0;
        for (let d = head * headDim; d < (head + 1) * headDim; d++)
          sum += at(q, query * columns + d) * at(k, key * columns + d);
        return sum * headDim ** -0.5;
      });
      const largest = Math.max(...scores);
      const p = scores.map((score) => Math.exp(score - largest));
      const total = p.reduce((sum, x) => sum + x);
      lse[head * queries + query] = largest + Math.log(total);
      for (let d = head * headDim; d < (head + 1) * headDim; d++) {
        const mean = p.reduce((sum, x, key) => sum + x * at(v, key * columns + d), 0) / total;
        const spread = (weight: (x: number) => number) =>
          p.reduce((sum, x, key) => sum + weight(x) * Math.abs(at(v, key * columns + d) - mean), 0) / total;
        o[query * columns + d] = mean;
        bound[query * columns + d] = probabilityBound(
          spread((x) => x),
          spread(() => 1),
          keys / total,
        );
      }
    }
  }
  return { o, lse, bound };
}

/**
 * The most that rounding probabilities can change an output. With r = p + δ, o' - o = Σ δ (v - o) / Σ r, since Σ p (v - o) = 0.
 * e4m3 has 3 stored bits and rounds 256 p, so |δ| <= p / 16, or 2^-18 where 256 p is below the smallest normal number, 2^-6.
 * What float32 adds is far below.
 */
function probabilityBound(ofP: number, ofOnes: number, keysOverTotal: number): number {
  const least = 2 ** -18;
  return (ofP / 16 + least * ofOnes) / (1 - 1 / 16 - least * keysOverTotal) + 1e-5;
}

/** Random inputs in e4m3, attention to them, and the references: of what they became, and of what they were. */
function run(shape: Shape, queries: number, change: Partial<Record<"q" | "k" | "v", (x: Float64Array) => void>> = {}) {
  const columns = columnsOf(shape);
  const inputs = {
    q: sequence(queries * columns, F32, 1, 2),
    k: sequence(keysOf(shape) * columns, shape.dtype ?? F32, 2, 2),
    v: sequence(keysOf(shape) * columns, shape.dtype ?? F32, 3, 2),
  };
  for (const name of ["q", "k", "v"] as const) change[name]?.(inputs[name]);
  const kv = quantize(inputs.k, inputs.v, shape);
  const q = quantizeQueries(inputs.q, shape);
  const o = poisoned(queries * columns, F32);
  const lse = poisoned(shape.heads * queries, F32);
  const args = {
    ...{ q: q.out, qScale: q.scale, vScale: kv.vScale, o, lse },
    ...{ qStride: columns, oStride: columns, queries, heads: shape.heads, headDim: shape.headDim },
    ...{ dtype: E4M3, oDtype: F32, scale: shape.headDim ** -0.5 },
  };
  const result = () => ({
    o: download(o, queries * columns, F32),
    lse: download(lse, shape.heads * queries, F32),
  });
  const back = () => dequantize(kv, shape);
  const exact = () => reference(q.values, back().k, back().v, shape);
  return { inputs, args, kv, result, exact, columns };
}

/** Σ of rounded probabilities is at most 1/16 off. */
const lseBound = -Math.log(1 - 1 / 16) + 1e-4;

describe("ditrun_attention in e4m3 on the CPU", () => {
  const shapes: [string, number, Shape][] = [
    ["one query, one key", 1, { heads: 1, headDim: 8, lengths: [1] }],
    ["head dimension 32", 51, { heads: 3, headDim: 32, lengths: [259] }],
    ["head dimension 64, bf16", 49, { heads: 2, headDim: 64, lengths: [1057], dtype: BF16 }],
    ["head dimension 128", 7, { heads: 2, headDim: 128, lengths: [33] }],
    ["an odd head dimension", 50, { heads: 3, headDim: 23, lengths: [70] }],
    ["blocks of uneven lengths", 20, { heads: 2, headDim: 32, lengths: [1, 77, 300, 1100, 16] }],
  ];
  it.each(shapes)("computes with what the quantisers wrote: %s", (_, queries, shape) => {
    const { args, kv, result, exact } = run(shape, queries);
    check(attention(args, kv.blocks));
    const { o, lse, bound } = exact();
    expect(worst(result().o, o, (i) => at(bound, i))).toBeLessThan(1);
    expect(worst(result().lse, lse, () => lseBound)).toBeLessThan(1);
  });

  it("writes e4m3 with a scale for each row of a head: amax / 448 of it", () => {
    const [queries, heads, headDim] = [50, 3, 23];
    const { args, kv, result, columns } = run({ heads, headDim, lengths: [300] }, queries);
    check(attention(args, kv.blocks));
    const exact = result().o;
    const [o, oScale] = [poisoned(queries * columns, E4M3), poisoned(queries * heads, F32)];
    check(attention({ ...args, o, oScale, oDtype: E4M3 }, kv.blocks));
    const scales = Float64Array.from({ length: queries * heads }, (_, i) => {
      const row = exact.subarray(i * headDim, (i + 1) * headDim);
      return Math.fround(row.reduce((most, x) => Math.max(most, Math.abs(x)), 0) / 448);
    });
    expect(download(oScale, queries * heads, F32)).toEqual(scales);
    const want = exact.map((x, i) => rounded(Math.fround(x / at(scales, Math.floor(i / headDim))), E4M3));
    expect(maxDifference(download(o, queries * columns, E4M3), want)).toBe(0);
    expect(attention({ ...args, o, oDtype: E4M3 }, kv.blocks)).toBe(1);
    expect(lastError()).toMatch(/oScale is 0/);
  });

  it("rounds probabilities: the error is there, and averages out in the sum", () => {
    const { args, kv, result, exact } = run({ heads: 2, headDim: 32, lengths: [400] }, 30);
    check(attention(args, kv.blocks));
    const { o, lse } = exact();
    const error = relativeL2(result().o, o);
    expect(error).toBeGreaterThan(0.005);
    expect(error).toBeLessThan(0.04);
    expect(maxDifference(result().lse, lse)).toBeLessThan(0.01);
  });

  it("is near attention to the inputs themselves", () => {
    const shape = { heads: 2, headDim: 32, lengths: [300, 211] };
    const { inputs, args, kv, result } = run(shape, 40);
    check(attention(args, kv.blocks));
    const { o } = reference(inputs.q, inputs.k, inputs.v, shape);
    // A rounding to 3 stored bits is off by 2.6 % of the value (root mean square). q and k make the scores, whose standard
    // deviation is 1.8 here, off by 0.026 · √2 · 1.8 = 0.066, so p by 6.6 %; p and v themselves by 2.6 % each: 7.6 % in all, of
    // an output that is a sum of random signs.
    const error = relativeL2(result().o, o);
    expect(error).toBeLessThan(0.1);
    expect(error).toBeGreaterThan(0.03);
  });

  it("does not see what all keys have in common", () => {
    // 256 keys, all numbers coarse: the mean and the differences from it are exact, so the result must have the same bits.
    const shape = { heads: 2, headDim: 32, lengths: [100, 156] };
    const [plain, shifted] = [0, 100].map((offset) => {
      const change = (x: Float64Array) =>
        x.set(coarse(x.length, 9).map((value, i) => value + offset * (((i % 64) % 3) + 1)));
      const { args, kv, result } = run(shape, 20, { k: change });
      check(attention(args, kv.blocks));
      return result();
    });
    expect(maxDifference(plain?.o ?? [], shifted?.o ?? [0])).toBe(0);
    expect(maxDifference(plain?.lse ?? [], shifted?.lse ?? [0])).toBe(0);
  });

  it("merges partial results as exactly as one launch", () => {
    const shape = { heads: 3, headDim: 32, lengths: [40, 300, 9] };
    const { args, kv, result, exact, columns } = run(shape, 25);
    const partO = poisoned(25 * columns, F32);
    const partLse = poisoned(shape.heads * 25, F32);
    check(attention({ ...args, o: partO, lse: partLse }, kv.blocks.slice(0, 2)));
    check(attention({ ...args, previousO: partO, previousLse: partLse }, kv.blocks.slice(2)));
    const { o, lse, bound } = exact();
    expect(worst(result().o, o, (i) => at(bound, i))).toBeLessThan(1);
    expect(worst(result().lse, lse, () => lseBound)).toBeLessThan(1);
  });

  it("writes bf16, rounded once", () => {
    const { args, kv, result, columns } = run({ heads: 2, headDim: 32, lengths: [90] }, 10);
    check(attention(args, kv.blocks));
    const narrow = poisoned(10 * columns, BF16);
    check(attention({ ...args, o: narrow, oDtype: BF16 }, kv.blocks));
    expect(download(narrow, 10 * columns, BF16)).toEqual(result().o.map((x) => rounded(x, BF16)));
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    "a %d among the inputs comes out as NaN",
    (bad) => {
      const shape = { heads: 2, headDim: 8, lengths: [150, 20] };
      // Query 3 of head 1; key 160 of head 1; value 160 of head 1's channel 4.
      const places = {
        q: [3 * 16 + 8, (row: number, c: number) => row === 3 && c >= 8],
        k: [160 * 16 + 9, (_: number, c: number) => c >= 8],
        v: [160 * 16 + 12, (_: number, c: number) => c === 12],
      } as const;
      for (const name of ["q", "k", "v"] as const) {
        const [index, isBad] = places[name];
        const { args, kv, result } = run(shape, 5, {
          [name]: (x: Float64Array) => {
            x[index] = bad;
          },
        });
        check(attention(args, kv.blocks));
        const want = Array.from({ length: 5 * 16 }, (_, i) => isBad(Math.floor(i / 16), i % 16));
        expect(
          [...result().o].map((x) => !Number.isFinite(x)),
          name,
        ).toEqual(want);
        expect(
          result().o.some((x) => Math.abs(x) === Number.POSITIVE_INFINITY),
          name,
        ).toBe(false);
      }
    },
  );

  it("needs its scales, and rows of values that are padded", () => {
    const { args, kv } = run({ heads: 2, headDim: 8, lengths: [3] }, 2);
    const wrong: [Record<string, number>, Record<string, number>, RegExp][] = [
      [{ qScale: 0 }, {}, /qScale is 0/],
      [{ vScale: 0 }, {}, /vScale is 0/],
      [{}, { kScale: 0 }, /kScale is 0/],
      [{}, { vStride: 16 }, /vStride of block 0 is 16 but e4m3 rows of 3 keys are padded to 128/],
      [{ kernel: 2 }, {}, /kernel is 2/],
    ];
    for (const [change, blockChange, sentence] of wrong) {
      const blocks = kv.blocks.map((block) => ({ ...block, ...blockChange }));
      expect(attention({ ...args, ...change }, blocks)).toBe(1);
      expect(lastError()).toMatch(sentence);
    }
  });
});
