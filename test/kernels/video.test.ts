import { afterEach, describe, expect, it } from "vitest";
import {
  BF16,
  check,
  download,
  downloadBytes,
  F16,
  F32,
  freeAll,
  lastError,
  made,
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

describe("ditrun_transpose on the CPU", () => {
  for (const dtype of [F32, BF16, F16]) {
    it(`turns each matrix of a batch, dtype ${dtype}`, () => {
      const [batch, rows, columns] = [3, 37, 65];
      const x = sequence(batch * rows * columns, dtype, 6);
      const expected = new Float64Array(x.length);
      x.forEach((value, index) => {
        const [b, r, c] = [
          Math.floor(index / rows / columns),
          Math.floor(index / columns) % rows,
          index % columns,
        ] as const;
        expected[(b * columns + c) * rows + r] = value;
      });
      const out = poisoned(x.length, dtype);
      check(raw.transpose(out, upload(x, dtype), batch, rows, columns, dtype, stream));
      expect(maxDifference(download(out, x.length, dtype), expected)).toBe(0);
    });
  }

  it("refuses to work in place", () => {
    const x = upload([1, 2, 3, 4], F32);
    expect(raw.transpose(x, x, 1, 2, 2, F32, stream)).toBe(1);
    expect(lastError()).toContain("cannot be in place");
  });
});

describe("ditrun_softmax_rows on the CPU", () => {
  for (const [dtype, outDtype, tolerance] of [
    [F32, F32, 1e-6],
    [BF16, BF16, 3e-3],
    [F32, BF16, 3e-3],
    [F16, F16, 4e-4],
    [F32, F16, 4e-4],
  ] as const) {
    it(`is softmax(scale · row), also for scores that overflow e^x, dtype ${dtype} to ${outDtype}`, () => {
      const [rows, columns, scale] = [5, 131, 0.7];
      const x = sequence(rows * columns, dtype, 7, 300);
      const expected = new Float64Array(x.length);
      for (let row = 0; row < rows; row++) {
        const scores = x.subarray(row * columns, (row + 1) * columns).map((value) => value * scale);
        const most = Math.max(...scores);
        const total = scores.reduce((sum, value) => sum + Math.exp(value - most), 0);
        scores.forEach((value, column) => {
          expected[row * columns + column] = Math.exp(value - most) / total;
        });
      }
      const address = upload(x, dtype);
      const out = dtype === outDtype ? address : poisoned(x.length, outDtype);
      check(raw.softmaxRows(out, outDtype, address, dtype, rows, columns, scale, stream));
      expect(relativeL2(download(out, x.length, outDtype), expected)).toBeLessThan(tolerance * 10);
    });
  }

  it("takes bf16 or f16, not both", () => {
    expect(raw.softmaxRows(256, BF16, 512, F16, 2, 4, 1, stream)).toBe(1);
    expect(lastError()).toContain("one tensor is bf16 and another f16");
  });

  it("cannot change the dtype in place", () => {
    expect(raw.softmaxRows(256, BF16, 256, F32, 2, 4, 1, stream)).toBe(1);
    expect(lastError()).toMatch(/out is x, so its dtype must be 0 too, but is 1/);
  });
});

describe("ditrun_to_bytes on the CPU", () => {
  it.each([F32, BF16, F16])("clamps, rounds to nearest even, and makes 0 of a NaN, dtype %i", (dtype) => {
    const exact = [-1, 1, 0, 0.003, -0.9961, 1.2, -3, Number.NaN, 1.5 / 127.5 - 1, 2.5 / 127.5 - 1];
    const x = exact.map((value) => rounded(value, dtype));
    const out = made((result) => raw.malloc(x.length, 0, result));
    const nonfinite = poisoned(1, F32);
    check(raw.toBytes(out, nonfinite, upload(x, dtype), dtype, x.length, stream));
    const bytes = new Uint8Array(x.length);
    check(raw.download(bytes, out, x.length, stream));
    const expected = x.map((value) => Math.fround(Math.fround(value + 1) * 127.5));
    const clamped = new Uint8ClampedArray(expected.length);
    expected.forEach((value, index) => {
      clamped[index] = value;
    });
    expect([...bytes]).toEqual([...clamped]);
    expect([...bytes]).toContain(255);
    check(raw.free(out));
  });

  it.each([F32, BF16, F16])(
    "says where a pixel is not finite, and leaves the word alone elsewhere, dtype %i",
    (dtype) => {
      const count = 40_003; // more than one thread's
      const out = made((result) => raw.malloc(count, 0, result));
      const word = made((result) => raw.malloc(8, 0, result));
      const words = () => new Uint32Array(downloadBytes(word, 8).buffer);
      const convert = (x: Float64Array) => check(raw.toBytes(out, word, upload(x, dtype), dtype, count, stream));
      const finite = sequence(count, dtype, 5, dtype === F16 ? 6e4 : 3e38);
      for (const [place, value] of [
        [0, Number.NaN],
        [count - 1, Number.POSITIVE_INFINITY],
        [20_000, Number.NEGATIVE_INFINITY],
      ] as const) {
        check(raw.fillZero(word, 8, stream));
        convert(finite);
        expect([...words()]).toEqual([0, 0]);
        convert(finite.map((x, index) => (index === place ? value : x)));
        expect([...words()]).toEqual([1, 0]);
        convert(finite);
        expect([...words()]).toEqual([1, 0]);
      }
      for (const address of [out, word]) check(raw.free(address));
    },
  );

  it("says so each time that a graph is replayed", () => {
    const [x, out, word] = [4, 4, 4].map((bytes) => made((result) => raw.malloc(bytes, 0, result)));
    const set = (value: number) => {
      check(raw.upload(x, new Uint8Array(Float32Array.of(value).buffer), 4, stream));
      check(raw.fillZero(word, 4, stream));
    };
    set(0);
    check(raw.captureBegin(stream));
    check(raw.toBytes(out, word, x, F32, 1, stream));
    const graph = made((result) => raw.captureEnd(stream, result));
    for (const value of [Number.NaN, 0, Number.POSITIVE_INFINITY, 1]) {
      set(value);
      check(raw.graphLaunch(graph, stream));
      expect([...downloadBytes(word ?? 0, 4)]).toEqual([Number.isFinite(value) ? 0 : 1, 0, 0, 0]);
    }
    check(raw.graphDestroy(graph));
    for (const address of [x, out, word]) check(raw.free(address));
  });
});
