import { afterEach, describe, expect, it } from "vitest";
import {
  allocate,
  at,
  attention,
  BF16,
  check,
  download,
  F32,
  freeAll,
  lastError,
  layerNorm,
  maxDifference,
  poisoned,
  raw,
  relativeL2,
  rmsNorm,
  rounded,
  sequence,
  stream,
  upload,
} from "./module.js";

afterEach(freeAll);

const all = (count: number, value: (index: number) => number) =>
  Float64Array.from({ length: count }, (_, i) => value(i));
const dtypes = [F32, BF16];
const tolerance = (dtype: number) => (dtype === F32 ? 1e-6 : 3e-3);

describe("ditrun_layer_norm with modulation on the CPU", () => {
  for (const dtype of dtypes) {
    it(`multiplies by 1 + scale and adds the shift, dtype ${dtype}`, () => {
      const [rows, columns, epsilon] = [37, 131, 1e-6];
      const x = sequence(rows * columns, dtype, 1, 3);
      const scale = sequence(columns, F32, 2);
      const shift = sequence(columns, F32, 3);
      const weight = sequence(columns, F32, 4);
      const want = all(rows * columns, (index) => {
        const row = x.subarray(index - (index % columns)).subarray(0, columns);
        const c = index % columns;
        const mean = row.reduce((sum, value) => sum + value) / columns;
        const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / columns;
        const y = ((at(row, c) - mean) / Math.sqrt(variance + epsilon)) * at(weight, c);
        return y * (1 + at(scale, c)) + at(shift, c);
      });
      const out = poisoned(rows * columns, dtype);
      const sizes = { ldx: columns, ldo: columns, rows, columns, xDtype: dtype, outDtype: dtype, epsilon };
      const modulation = { modScale: upload(scale, F32), modShift: upload(shift, F32) };
      check(layerNorm({ x: upload(x, dtype), weight: upload(weight, F32), out, ...sizes, ...modulation }));
      expect(relativeL2(download(out, want.length, dtype), want)).toBeLessThan(tolerance(dtype));
    });
  }

  it("needs scale and shift together", () => {
    expect(layerNorm({ x: 256, out: 256, ldx: 4, ldo: 4, rows: 1, columns: 4, modScale: 256 })).toBe(1);
    expect(lastError()).toMatch(/modScale and modShift are needed together/);
  });
});

describe("ditrun_rope_3d on the CPU", () => {
  it("turns the first pairs with the frame, the next with the row, the last with the column", () => {
    const [gridHeight, gridWidth, firstToken, tokens, headDim] = [3, 5, 11, 40, 22];
    const out = poisoned(tokens * headDim, F32);
    check(raw.rope3d(out, gridHeight, gridWidth, firstToken, tokens, headDim, stream));
    // 11 pairs: 5 for the frame, 3 for the row, 3 for the column.
    const want = all(tokens * headDim, (i) => {
      const token = firstToken + Math.floor(i / headDim);
      const pair = Math.floor((i % headDim) / 2);
      const [position, j, n] =
        pair < 5
          ? [Math.floor(token / 15), pair, 5]
          : pair < 8
            ? [Math.floor(token / 5) % 3, pair - 5, 3]
            : [token % 5, pair - 8, 3];
      const angle = position * 10000 ** (-j / n);
      return i % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
    });
    expect(maxDifference(download(out, want.length, F32), want)).toBeLessThan(1e-7);
  });
});

describe("Wan's elementwise operators on the CPU", () => {
  const [rows, columns] = [9, 1290];
  const count = rows * columns;

  for (const [xDtype, yDtype] of [
    [F32, F32],
    [F32, BF16],
    [BF16, BF16],
  ] as const) {
    it(`adds dtype ${yDtype} times a gate to dtype ${xDtype}, in place`, () => {
      const x = sequence(count, xDtype, 1);
      const y = sequence(count, yDtype, 2);
      const gate = sequence(columns, F32, 3);
      const dx = upload(x, xDtype);
      check(raw.addGated(dx, dx, xDtype, upload(y, yDtype), yDtype, upload(gate, F32), rows, columns, stream));
      const want = all(count, (i) => at(x, i) + at(y, i) * at(gate, i % columns));
      expect(relativeL2(download(dx, count, xDtype), want)).toBeLessThan(tolerance(xDtype));
    });
  }

  for (const dtype of dtypes) {
    it(`multiplies, rounded once, dtype ${dtype}`, () => {
      const x = sequence(count, dtype, 1);
      const y = sequence(count, dtype, 2);
      const dy = upload(y, dtype);
      check(raw.multiply(dy, upload(x, dtype), dy, count, dtype, stream));
      const want = all(count, (i) => rounded(Math.fround(at(x, i) * at(y, i)), dtype));
      expect(maxDifference(download(dy, count, dtype), want)).toBe(0);
    });

    it(`gathers rows of dtype ${dtype}; an id outside of the table gives NaN`, () => {
      const table = sequence(7 * columns, dtype, 1);
      const ids = new Int32Array([6, 0, -1, 3, 3, 7, 1]);
      const idAddress = allocate(ids.byteLength);
      check(raw.upload(idAddress, ids, ids.byteLength, stream));
      const out = poisoned(ids.length * columns, F32);
      check(raw.gatherRows(out, F32, upload(table, dtype), dtype, 7, idAddress, ids.length, columns, stream));
      const want = all(ids.length * columns, (i) => {
        const id = at(ids, Math.floor(i / columns));
        return id >= 0 && id < 7 ? at(table, id * columns + (i % columns)) : Number.NaN;
      });
      expect(download(out, want.length, F32)).toEqual(want);
    });
  }

  it("combines up to eight tensors, in the order given; out may be one of them", () => {
    const sources = Array.from({ length: 8 }, (_, i) => sequence(count, F32, i + 1));
    const addresses = sources.map((x) => upload(x, F32));
    const coefficients = sources.map((_, i) => Math.fround((i - 3.3) / 7));
    check(raw.combine(at(addresses, 5), addresses, coefficients, 8, count, stream));
    const want = all(count, (i) => sources.reduce((sum, x, s) => sum + at(coefficients, s) * at(x, i), 0));
    expect(relativeL2(download(at(addresses, 5), count, F32), want)).toBeLessThan(1e-6);
  });
});

describe("patches of a video on the CPU", () => {
  const [channels, frames, height, width, patch] = [3, 4, 6, 10, 2];
  const [gridHeight, gridWidth] = [height / patch, width / patch];
  const [firstToken, tokens] = [8, 41];
  const perToken = channels * patch * patch;
  const shape = [channels, frames, height, width, patch, firstToken, tokens];
  const element = (token: number, c: number, y: number, x: number) => {
    const frame = Math.floor(token / (gridHeight * gridWidth));
    const row = Math.floor(token / gridWidth) % gridHeight;
    return ((c * frames + frame) * height + row * patch + y) * width + (token % gridWidth) * patch + x;
  };

  for (const dtype of dtypes) {
    it(`cuts (channel, row, column) and puts back (row, column, channel), dtype ${dtype}`, () => {
      const latent = sequence(channels * frames * height * width, F32, 1).map((x) => rounded(x, dtype));
      const out = poisoned(tokens * perToken, dtype);
      check(raw.patchifyVideo(out, dtype, upload(latent, F32), F32, ...shape, stream));
      const want = all(tokens * perToken, (i) => {
        const [token, inToken] = [firstToken + Math.floor(i / perToken), i % perToken];
        return at(latent, element(token, Math.floor(inToken / 4), Math.floor(inToken / 2) % 2, inToken % 2));
      });
      expect(download(out, want.length, dtype)).toEqual(want);

      const x = sequence(tokens * perToken, dtype, 2);
      const restored = poisoned(latent.length, F32);
      check(raw.unpatchifyVideo(restored, F32, upload(x, dtype), dtype, ...shape, stream));
      const wanted = new Float64Array(latent.length).fill(Number.NaN);
      x.forEach((value, i) => {
        const [token, inToken] = [firstToken + Math.floor(i / perToken), i % perToken];
        const pixel = Math.floor(inToken / channels);
        wanted[element(token, inToken % channels, Math.floor(pixel / 2), pixel % 2)] = value;
      });
      expect(download(restored, latent.length, F32)).toEqual(wanted);
    });
  }
});

describe("ditrun_attention with a relative bias on the CPU", () => {
  it.each([
    [23, [23], 16],
    [70, [3, 300, 40], 20],
    [1, [1], 8],
  ])(
    "adds bias[key - query + queries - 1] to the scores: %i queries, keys %j, headDim %i",
    (queries, lengths, headDim) => {
      const heads = 3;
      const row = heads * headDim;
      const keys = lengths.reduce((a, b) => a + b);
      const q = sequence(queries * row, F32, 1);
      const k = sequence(keys * row, F32, 2);
      const v = sequence(keys * row, F32, 3);
      const offsets = queries + keys - 1;
      const bias = sequence(heads * offsets, F32, 4, 4);
      const want = all(queries * row, (i) => {
        const query = Math.floor(i / row);
        const head = Math.floor((i % row) / headDim);
        const weights = all(keys, (key) => {
          let score = at(bias, head * offsets + key - query + queries - 1);
          for (let d = 0; d < headDim; d++) {
            score += at(q, query * row + head * headDim + d) * at(k, key * row + head * headDim + d);
          }
          return Math.exp(score);
        });
        const total = weights.reduce((a, b) => a + b);
        return weights.reduce((sum, weight, key) => sum + (weight / total) * at(v, key * row + (i % row)), 0);
      });
      const [dk, dv] = [upload(k, F32), upload(v, F32)];
      let start = 0;
      const blocks = lengths.map((length) => {
        const block = { k: dk + start * row * 4, v: dv + start * row * 4, kStride: row, vStride: row, length };
        start += length;
        return block;
      });
      const o = poisoned(queries * row, F32);
      const sizes = { qStride: row, oStride: row, queries, heads, headDim, scale: 1 };
      check(attention({ q: upload(q, F32), o, relativeBias: upload(bias, F32), ...sizes }, blocks));
      expect(relativeL2(download(o, want.length, F32), want)).toBeLessThan(2e-6);
    },
  );
});

describe("Wan's operators refuse what does not fit, with the numbers", () => {
  const wrong: [() => number, RegExp][] = [
    [() => rmsNorm({ x: 256, out: 256, ldx: 8, ldo: 8, rows: 1, columns: 8, rope: 256, headDim: 3 }), /headDim is 3/],
    [
      () => rmsNorm({ x: 256, out: 256, ldx: 8, ldo: 8, rows: 1, columns: 8, sumSquares: 256, fullColumns: 4 }),
      /of 4 columns, fewer than the 8 of x/,
    ],
    [() => rmsNorm({ x: 256, out: 256, ldx: 8, ldo: 8, rows: 1, columns: 8, activation: 4 }), /activation is 4/],
    [() => rmsNorm({ x: 256, ldx: 8, rows: 1, columns: 8 }), /out and quantized are 0 and 0/],
    [() => rmsNorm({ x: 256, quantized: 256, ldx: 8, rows: 1, columns: 8, headDim: 4 }), /quantizedScale is 0/],
    [
      () => rmsNorm({ x: 256, quantized: 256, quantizedScale: 256, ldx: 8, rows: 1, columns: 8, headDim: 3 }),
      /headDim is 3/,
    ],
    [() => raw.rowSumSquares(256, 256, 3, 1, 4, F32, stream), /ldx is 3 but a row has 4/],
    [() => raw.rope3d(256, 2, 2, 0, 4, 4, stream), /headDim is 4 .* at least 6/],
    [() => raw.addGated(256, 256, F32, 256, F32, 0, 1, 4, stream), /gate is 0/],
    [() => raw.multiply(256, 256, 0, 4, F32, stream), /is 0/],
    [() => raw.combine(256, [256], [1], 9, 4, stream), /sourceCount is 9 but must be 1 to 8/],
    [() => raw.gatherRows(256, F32, 256, F32, 0, 256, 1, 4, stream), /tableRows are 1, 4 and 0/],
    [() => raw.patchifyVideo(256, F32, 256, F32, 3, 2, 5, 4, 2, 0, 1, stream), /5 by 4 .* patches of 2/],
    [() => raw.unpatchifyVideo(256, F32, 256, F32, 3, 2, 4, 4, 2, 7, 2, stream), /tokens 7 to 9 .* has 8/],
  ];
  it.each(wrong)("%#", (call, sentence) => {
    expect(call()).toBe(1);
    expect(lastError()).toMatch(sentence);
  });
});
