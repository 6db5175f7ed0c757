import { afterEach, describe, expect, it } from "vitest";
import {
  coarse,
  columnsOf,
  dequantize,
  groupKeys,
  keyOfPlace,
  keysOf,
  padded,
  quantize,
  type Shape,
  uploadRows,
  worst,
} from "./kv.js";
import {
  allocate,
  at,
  BF16,
  check,
  download,
  E4M3,
  F32,
  freeAll,
  lastError,
  maxDifference,
  poisoned,
  quantizeKv,
  raw,
  rounded,
  stream,
} from "./module.js";

afterEach(freeAll);

describe("ditrun_kv_statistics on the CPU", () => {
  it.each([1, 63, 64, 65, 1000])(
    "sums keys and finds the largest value of %i rows, the same bits each time",
    (rows) => {
      const columns = 37;
      const k = coarse(rows * columns, 1);
      const v = coarse(rows * columns, 2);
      const source = uploadRows(k, v, columns, F32);
      const outs = [0, 1].map(() => {
        const statistics = poisoned(2 * columns, F32);
        const workspace = poisoned(64 * 2 * columns, F32);
        const inputs = [source.k, source.stride, source.v, source.stride];
        check(raw.kvStatistics(statistics, workspace, ...inputs, rows, columns, F32, stream));
        return download(statistics, 2 * columns, F32);
      });
      const ofColumn = (x: Float64Array, c: number) => x.filter((_, i) => i % columns === c);
      const want = Float64Array.from({ length: 2 * columns }, (_, i) =>
        i < columns
          ? ofColumn(k, i).reduce((sum, x) => sum + x)
          : ofColumn(v, i - columns).reduce((most, x) => Math.max(most, Math.abs(x)), 0),
      );
      expect(outs[0]).toEqual(want);
      expect(outs[1]).toEqual(want);
    },
  );
});

describe("ditrun_quantize_kv on the CPU", () => {
  const shapes: Record<string, Shape> = {
    "one key": { heads: 1, headDim: 8, lengths: [1] },
    "an odd length": { heads: 3, headDim: 32, lengths: [259] },
    "whole groups, bf16": { heads: 2, headDim: 16, lengths: [256], dtype: BF16 },
    "ranks of uneven lengths": { heads: 2, headDim: 24, lengths: [1, 77, 128, 300] },
  };
  for (const [name, shape] of Object.entries(shapes)) {
    it(`writes the header's layout: ${name}`, () => {
      const { heads, headDim } = shape;
      const columns = columnsOf(shape);
      const total = keysOf(shape);
      const k = coarse(total * columns, 3);
      const v = coarse(total * columns, 4);
      const { blocks, vScale } = quantize(k, v, shape);
      const mean = Float64Array.from({ length: columns }, (_, c) =>
        Math.fround(k.reduce((sum, x, i) => (i % columns === c ? sum + x : sum), 0) / total),
      );
      const wantV = Float64Array.from({ length: columns }, (_, c) =>
        Math.fround(v.reduce((most, x, i) => (i % columns === c ? Math.max(most, Math.abs(x)) : most), 0) / 448),
      );
      expect(download(vScale, columns, F32)).toEqual(wantV);
      let first = 0;
      for (const { length, ...block } of blocks) {
        const groups = padded(length) / groupKeys;
        const smoothed = (key: number, c: number) => Math.fround(at(k, (first + key) * columns + c) - at(mean, c));
        const scales = Float64Array.from({ length: heads * groups }, (_, i) => {
          const [head, group] = [Math.floor(i / groups), i % groups];
          let most = 0;
          for (let key = group * groupKeys; key < Math.min(length, (group + 1) * groupKeys); key++) {
            for (let d = 0; d < headDim; d++) most = Math.max(most, Math.abs(smoothed(key, head * headDim + d)));
          }
          return Math.max(Math.fround(most / 448), 2 ** -126);
        });
        expect(download(block.kScale, heads * groups, F32)).toEqual(scales);
        const wantK = Float64Array.from({ length: length * columns }, (_, i) => {
          const [key, c] = [Math.floor(i / columns), i % columns];
          const scale = at(scales, Math.floor(c / headDim) * groups + Math.floor(key / groupKeys));
          return rounded(Math.fround(smoothed(key, c) / scale), E4M3);
        });
        expect(maxDifference(download(block.k, length * columns, E4M3), wantK)).toBe(0);
        const wantPlaces = Float64Array.from({ length: columns * padded(length) }, (_, i) => {
          const [c, place] = [Math.floor(i / padded(length)), i % padded(length)];
          const key = place - (place % 16) + at(keyOfPlace, place % 16);
          if (key >= length) return 0;
          return rounded(Math.fround(at(v, (first + key) * columns + c) / at(wantV, c)), E4M3);
        });
        expect(maxDifference(download(block.v, columns * padded(length), E4M3), wantPlaces)).toBe(0);
        first += length;
      }
    });
  }

  it("loses at most one rounding of each key, less the mean, and of each value", () => {
    const shape = { heads: 2, headDim: 32, lengths: [130, 67] };
    const columns = columnsOf(shape);
    const k = coarse(197 * columns, 5).map((x) => x + 100);
    const v = coarse(197 * columns, 6);
    const back = dequantize(quantize(k, v, shape), shape);
    const mean = (c: number) => k.reduce((sum, x, i) => (i % columns === c ? sum + x : sum), 0) / 197;
    // 2^-4 of a value, or half of the smallest step, 2^-9, of a scale that is at most 4 / 448; the mean is rounded once.
    const allowed = (x: number) => Math.abs(x) / 16 + (2 ** -10 * 4) / 448 + 1e-5;
    const means = Float64Array.from({ length: columns }, (_, c) => mean(c));
    const smoothed = k.map((x, i) => x - at(means, i % columns));
    expect(worst(back.k, smoothed, (i) => allowed(at(smoothed, i)))).toBeLessThanOrEqual(1);
    expect(worst(back.v, v, (i) => allowed(at(v, i)))).toBeLessThanOrEqual(1);
  });

  it("keeps zeros, and scales that are normal numbers", () => {
    const shape = { heads: 1, headDim: 16, lengths: [5] };
    const kv = quantize(new Float64Array(80), new Float64Array(80), shape);
    expect([...download(kv.vScale, 16, F32)]).toEqual(Array(16).fill(2 ** -126));
    const back = dequantize(kv, shape);
    expect(Math.max(...back.k.map(Math.abs), ...back.v.map(Math.abs))).toBe(0);
  });

  it("refuses wrong arguments with their values", () => {
    const address = allocate(1024);
    const outputs = { outK: address, outV: address, kScale: address, vScale: address };
    const inputs = { k: address, v: address, ldk: 16, ldv: 16, statistics: address, totalRows: 3 };
    const args = { ...inputs, ...outputs, rows: 3, heads: 2, headDim: 8, statisticsCount: 1, dtype: F32 };
    const wrong: [Record<string, number>, RegExp][] = [
      [{ totalRows: 2 }, /totalRows is 2, fewer than the 3 rows/],
      [{ ldv: 15 }, /ldk and ldv are 16 and 15 but a row of 2 heads of 8 has 16/],
      [{ dtype: E4M3 }, /dtype 2 \(e4m3\) but must be one of f32, bf16/],
      [{ statisticsCount: 0 }, /statisticsCount is 0/],
      [{ vScale: 0 }, /vScale is 0/],
      [{ kScale: address + 2 }, /kScale is at address/],
    ];
    for (const [change, sentence] of wrong) {
      expect(quantizeKv({ ...args, ...change })).toBe(1);
      expect(lastError()).toMatch(sentence);
    }
    expect(raw.kvStatistics(address, address, address, 7, address, 8, 3, 8, F32, stream)).toBe(1);
    expect(lastError()).toMatch(/ldk and ldv are 7 and 8 but a row has 8/);
  });
});
