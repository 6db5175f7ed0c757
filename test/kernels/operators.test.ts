import { afterEach, describe, expect, it } from "vitest";
import {
  at,
  BF16,
  check,
  download,
  downloadBytes,
  E4M3,
  F16,
  F32,
  freeAll,
  lastError,
  layerNorm,
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

const all = (count: number, value: (index: number) => number) =>
  Float64Array.from({ length: count }, (_, i) => value(i));
const round = (x: Float64Array, dtype: number) => x.map((value) => rounded(value, dtype));

describe("ditrun_cast on the CPU", () => {
  it("decodes every e4m3 and bf16 number, and encodes it back to the same bits", () => {
    const bits = Uint8Array.from({ length: 256 }, (_, index) => index);
    const source = upload(new Float64Array(256), E4M3);
    check(raw.upload(source, bits, 256, stream));
    const decoded = poisoned(256, F32);
    check(raw.cast(decoded, F32, source, E4M3, 256, stream));
    expect(download(decoded, 256, F32)).toEqual(download(source, 256, E4M3));
    const back = poisoned(256, E4M3);
    check(raw.cast(back, E4M3, decoded, F32, 256, stream));
    expect(downloadBytes(back, 256)).toEqual(bits);
  });

  for (const dtype of [BF16, F16, E4M3]) {
    it(`rounds float32 to dtype ${dtype} to nearest even, subnormal numbers too`, () => {
      const random = sequence(4000, F32, 5).map((x, index) => Math.fround(x * 2 ** ((index % 40) - 28)));
      // Middles between neighbours, and numbers just off them.
      const middles = all(4000, (index) => {
        const mantissa = dtype === BF16 ? 256 : dtype === F16 ? 2048 : 16;
        const middle = ((index % mantissa) + 0.5) * 2 ** ((index % 23) - 20);
        return Math.fround(middle * (1 + ((index % 3) - 1) * 2 ** -20));
      });
      for (const values of [random, middles]) {
        const x = values.map((value) => (dtype === F16 && Math.abs(value) > 60000 ? 1 : value));
        const out = poisoned(x.length, dtype);
        check(raw.cast(out, dtype, upload(x, F32), F32, x.length, stream));
        expect(maxDifference(download(out, x.length, dtype), round(x, dtype))).toBe(0);
      }
    });
  }

  it("saturates e4m3 at 448, overflows f16 to infinity, keeps NaN", () => {
    const x = [447.9, 449, 1e9, -500, Number.POSITIVE_INFINITY, Number.NaN, 65519, 65520];
    const source = upload(x, F32);
    const out = poisoned(8, E4M3);
    check(raw.cast(out, E4M3, source, F32, 8, stream));
    expect([...download(out, 8, E4M3)]).toEqual([448, 448, 448, -448, 448, Number.NaN, 448, 448]);
    const half = poisoned(8, F16);
    check(raw.cast(half, F16, source, F32, 8, stream));
    expect([...download(half, 8, F16)].slice(4)).toEqual([
      Number.POSITIVE_INFINITY,
      Number.NaN,
      65504,
      Number.POSITIVE_INFINITY,
    ]);
    const bf16 = poisoned(8, BF16);
    check(raw.cast(bf16, BF16, source, F32, 8, stream));
    expect([...download(bf16, 8, BF16)].slice(4, 6)).toEqual([Number.POSITIVE_INFINITY, Number.NaN]);
  });
});

describe("ditrun_layer_norm and ditrun_quantize_rows on the CPU", () => {
  const rows = 37;
  const columns = 131;
  const ldx = columns + 4;
  const ldo = columns + 2;

  function normalised(x: Float64Array, weight: Float64Array | undefined, bias: Float64Array | undefined) {
    return all(rows * columns, (index) => {
      const row = x.subarray(Math.floor(index / columns) * ldx).subarray(0, columns);
      const mean = row.reduce((sum, value) => sum + value) / columns;
      const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / columns;
      const c = index % columns;
      return (
        ((at(row, c) - mean) / Math.sqrt(variance + 1e-5)) * at(weight ?? [1], weight ? c : 0) +
        (bias ? at(bias, c) : 0)
      );
    });
  }
  const input = (dtype: number) => {
    const x = sequence(rows * ldx, dtype, 1, 3).map((value) => rounded(value + 5, dtype));
    for (let row = 0; row < rows; row++) x.fill(Number.NaN, row * ldx + columns, (row + 1) * ldx);
    return x;
  };
  const tight = (x: Float64Array, ld: number) =>
    all(rows * columns, (i) => at(x, Math.floor(i / columns) * ld + (i % columns)));

  for (const dtype of [F32, BF16]) {
    for (const affine of [true, false]) {
      it(`normalises rows of dtype ${dtype} ${affine ? "with" : "without"} weight and bias`, () => {
        const x = input(dtype);
        const weight = affine ? sequence(columns, dtype, 2) : undefined;
        const bias = affine ? sequence(columns, dtype, 3) : undefined;
        const out = poisoned(rows * ldo, dtype);
        check(
          layerNorm({
            ...{
              x: upload(x, dtype),
              out,
              ldx,
              ldo,
              rows,
              columns,
              xDtype: dtype,
              weightDtype: dtype,
              outDtype: dtype,
            },
            weight: weight ? upload(weight, dtype) : 0,
            bias: bias ? upload(bias, dtype) : 0,
          }),
        );
        const stored = download(out, rows * ldo, dtype);
        const error = relativeL2(tight(stored, ldo), normalised(x, weight, bias));
        expect(error).toBeLessThan(dtype === F32 ? 1e-6 : 3e-3);
        for (let row = 0; row < rows; row++) expect(stored[row * ldo + columns]).toBeNaN();
      });
    }
  }

  it("quantises what it normalised, with or without storing it", () => {
    const x = input(F32);
    const want = normalised(x, undefined, undefined);
    const quantized = poisoned(rows * columns, E4M3);
    const quantizedScale = poisoned(rows, F32);
    const bound = poisoned(rows, F32);
    const bounds = { bound, boundFactor: 0.25, boundTerm: 3 };
    check(layerNorm({ x: upload(x, F32), ldx, rows, columns, quantized, quantizedScale, ...bounds }));
    const lengths = all(rows, (row) => Math.hypot(...want.subarray(row * columns, (row + 1) * columns)));
    expect(
      relativeL2(
        download(bound, rows, F32),
        lengths.map((length) => 0.25 * length + 3),
      ),
    ).toBeLessThan(1e-6);
    const scales = download(quantizedScale, rows, F32);
    const q = download(quantized, rows * columns, E4M3);
    for (let row = 0; row < rows; row++) {
      const amax = want.subarray(row * columns, (row + 1) * columns).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      expect(Math.abs(at(scales, row) / (amax / 448) - 1)).toBeLessThan(1e-5);
      expect(q.subarray(row * columns, (row + 1) * columns).reduce((a, b) => Math.max(a, Math.abs(b)), 0)).toBe(448);
    }
    const back = q.map((value, index) => value * at(scales, Math.floor(index / columns)));
    expect(relativeL2(back, want)).toBeLessThan(0.04);
  });

  it("quantises rows: scale amax / 448, quotients rounded to nearest even, a row of zeros stays zeros", () => {
    for (const dtype of [F32, BF16]) {
      const x = input(dtype);
      x.fill(0, 2 * ldx, 2 * ldx + columns);
      const out = poisoned(rows * columns, E4M3);
      const scale = poisoned(rows, F32);
      check(raw.quantizeRows(out, scale, upload(x, dtype), ldx, rows, columns, dtype, stream));
      const scales = download(scale, rows, F32);
      const values = tight(x, ldx);
      for (let row = 0; row < rows; row++) {
        const amax = values.subarray(row * columns, (row + 1) * columns).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        expect(at(scales, row)).toBe(Math.fround(Math.max(amax, Math.fround(1e-12)) / 448));
      }
      const want = values.map((value, i) => rounded(Math.fround(value / at(scales, Math.floor(i / columns))), E4M3));
      expect(maxDifference(download(out, rows * columns, E4M3), want)).toBe(0);
    }
  });
});

describe("elementwise operators on the CPU", () => {
  const count = 2_500;

  it("activates in place, accurate to 1.5e-7 of max(1, |x|)", () => {
    const x = all(count, (index) => Math.fround((index - count / 2) / 50));
    const sigmoid = (value: number) => 1 / (1 + Math.exp(-value));
    const tanhGelu = (v: number) => v * sigmoid(2 * Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3));
    const want = [undefined, undefined, tanhGelu, (value: number) => value * sigmoid(value)];
    for (const activation of [2, 3]) {
      const out = upload(x, F32);
      check(raw.activate(out, out, count, F32, activation, stream));
      const got = download(out, count, F32);
      const error = got.map(
        (value, i) => (value - (want[activation]?.(at(x, i)) ?? 0)) / Math.max(1, Math.abs(at(x, i))),
      );
      expect(maxDifference(error, new Float64Array(count))).toBeLessThan(1.5e-7);
    }
  });

  for (const dtype of [F32, BF16]) {
    it(`adds, dtype ${dtype}: tensors, rows with a vector, and sums over processes, each rounded once`, () => {
      const x = sequence(count, dtype, 1);
      const y = sequence(count, dtype, 2);
      const z = sequence(count, dtype, 3);
      const columns = 125;
      const vector = sequence(columns, dtype, 4);
      const [dx, dy, dz, dv] = [upload(x, dtype), upload(y, dtype), upload(z, dtype), upload(vector, dtype)];
      const sum = poisoned(count, dtype);
      check(raw.add(sum, dx, dy, count, dtype, stream));
      const f = Math.fround;
      const two = all(count, (i) => f(at(x, i) + at(y, i)));
      expect(maxDifference(download(sum, count, dtype), round(two, dtype))).toBe(0);

      const withRows = poisoned(count, dtype);
      check(raw.addRows(withRows, dx, dy, dv, count / columns, columns, dtype, stream));
      const three = all(count, (i) => f(at(two, i) + at(vector, i % columns)));
      expect(maxDifference(download(withRows, count, dtype), round(three, dtype))).toBe(0);
      check(raw.addRows(withRows, dx, 0, dv, count / columns, columns, dtype, stream));
      const noTable = all(count, (i) => f(at(x, i) + at(vector, i % columns)));
      expect(maxDifference(download(withRows, count, dtype), round(noTable, dtype))).toBe(0);

      const total = upload(x, dtype);
      check(raw.sum(total, total, dv, columns, [dy, dz, dy], 3, count, dtype, dtype, stream));
      const want = all(count, (i) => f(f(f(f(at(x, i) + at(y, i)) + at(z, i)) + at(y, i)) + at(vector, i % columns)));
      expect(maxDifference(download(total, count, dtype), round(want, dtype))).toBe(0);
      check(raw.sum(total, 0, 0, 0, [dz], 1, count, dtype, dtype, stream));
      expect(maxDifference(download(total, count, dtype), z)).toBe(0);
      // A row of the bias that is longer than what is summed at once.
      const wide = sequence(count / 2, dtype, 6);
      check(raw.sum(total, 0, upload(wide, dtype), count / 2, [dy], 1, count, dtype, dtype, stream));
      const biased = all(count, (i) => f(at(y, i) + at(wide, i % (count / 2))));
      expect(maxDifference(download(total, count, dtype), round(biased, dtype))).toBe(0);

      // A float32 total of sources in this dtype.
      const base = sequence(count, F32, 5);
      const mixed = upload(base, F32);
      check(raw.sum(mixed, mixed, 0, 0, [dy, dz], 2, count, F32, dtype, stream));
      const exact = all(count, (i) => f(f(at(base, i) + at(y, i)) + at(z, i)));
      expect(maxDifference(download(mixed, count, F32), exact)).toBe(0);
    });
  }

  it("counts NaN and infinities", () => {
    const x = sequence(count, BF16, 1);
    [0, 1024, 2498, 2499].forEach((index, i) => {
      x[index] = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY][i % 3] ?? 0;
    });
    for (const dtype of [F32, BF16]) {
      const result = poisoned(1, F32);
      check(raw.countNonfinite(result, upload(x, dtype), count, dtype, stream));
      expect(downloadBytes(result, 4)).toEqual(new Uint8Array([4, 0, 0, 0]));
    }
  });
});

describe("tokens and embeddings on the CPU", () => {
  const channels = 3;
  const height = 12;
  const width = 20;
  const patch = 4;
  const perToken = channels * patch * patch;

  for (const dtype of [F32, BF16]) {
    it(`cuts an image into patches and puts some of them back, dtype ${dtype}`, () => {
      const image = sequence(channels * height * width, dtype, 1);
      const [firstToken, tokens] = [4, 7];
      const out = poisoned(tokens * perToken, dtype);
      const shape = [channels, height, width, patch, firstToken, tokens];
      check(raw.patchify(out, dtype, upload(image, dtype), dtype, ...shape, stream));
      const pixel = (token: number, c: number, y: number, x: number) =>
        (c * height + Math.floor(token / 5) * patch + y) * width + (token % 5) * patch + x;
      const want = new Float64Array(tokens * perToken);
      const back = new Float64Array(image.length).fill(Number.NaN);
      for (let token = 0; token < tokens; token++) {
        for (let i = 0; i < perToken; i++) {
          const from = pixel(firstToken + token, Math.floor(i / 16), Math.floor(i / 4) % 4, i % 4);
          want[token * perToken + i] = at(image, from);
          back[from] = at(image, from);
        }
      }
      expect(download(out, want.length, dtype)).toEqual(want);
      const restored = poisoned(image.length, F32);
      check(raw.unpatchify(restored, F32, out, dtype, ...shape, stream));
      expect(download(restored, image.length, F32)).toEqual(back);
    });
  }

  const embedding = (p: number, column: number, full: number) => {
    const j = column % (full / 2);
    const angle = p * Math.exp((-Math.log(10000) * j) / (full / 2));
    return column < full / 2 ? Math.sin(angle) : Math.cos(angle);
  };

  it("embeds positions: all sines, then all cosines; any range of columns", () => {
    const positions = [0, 1, 17.5, 999];
    const [full, first, columns] = [46, 5, 37];
    const out = poisoned(positions.length * columns, F32);
    check(raw.sincosEmbedding(out, F32, upload(positions, F32), positions.length, full, first, columns, stream));
    const want = all(positions.length * columns, (i) =>
      embedding(at(positions, Math.floor(i / columns)), first + (i % columns), full),
    );
    // The angle is a float32: at 999 it is off by up to 3e-5.
    expect(maxDifference(download(out, want.length, F32), want)).toBeLessThan(1e-4);
    expect(maxDifference(download(out, columns * 2, F32), want.subarray(0, columns * 2))).toBeLessThan(3e-7);
  });

  it("embeds grid positions: the row in the first half, the column in the second", () => {
    const [gridWidth, firstToken, tokens, full, first, columns] = [5, 3, 9, 24, 4, 18];
    const out = poisoned(tokens * columns, F32);
    check(raw.sincos2d(out, F32, gridWidth, firstToken, tokens, full, first, columns, stream));
    const want = all(tokens * columns, (i) => {
      const token = firstToken + Math.floor(i / columns);
      const column = first + (i % columns);
      const half = full / 2;
      return embedding(column < half ? Math.floor(token / gridWidth) : token % gridWidth, column % half, half);
    });
    expect(maxDifference(download(out, want.length, F32), want)).toBeLessThan(1e-6);
  });

  it("refuses what does not fit, with the numbers", () => {
    const wrong: [() => number, RegExp][] = [
      [() => raw.patchify(256, F32, 256, F32, 3, 10, 20, 4, 0, 1, stream), /10 by 20 .* patches of 4/],
      [() => raw.patchify(256, F32, 256, F32, 3, 12, 20, 4, 14, 2, stream), /tokens 14 to 16 .* has 15/],
      [() => raw.sincosEmbedding(256, F32, 256, 1, 6, 3, 4, stream), /columns 3 to 7 .* width is 6/],
      [() => raw.sincos2d(256, F32, 5, 0, 1, 6, 0, 6, stream), /multiple of 4/],
      [() => raw.sum(256, 0, 256, 7, [256], 1, 20, F32, F32, stream), /20 elements are no whole rows of 7/],
      [() => raw.add(256, 256, 0, 4, F32, stream), /is 0/],
      [() => raw.cast(256, 9, 256, F32, 4, stream), /outDtype is dtype 9 \(unknown\)/],
    ];
    for (const [call, sentence] of wrong) {
      expect(call()).toBe(1);
      expect(lastError()).toMatch(sentence);
    }
  });
});
