import { afterEach, describe, expect, it } from "vitest";
import {
  allocate,
  attention,
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
  streamSynchronizeAsync,
  upload,
} from "./module.js";

afterEach(freeAll);

interface Shape {
  queries: number;
  heads: number;
  headDim: number;
  lengths: number[];
  dtype?: number;
  oDtype?: number;
  size?: number;
}

/** Softmax attention in float64: o [queries, heads, headDim] and lse [heads, queries]. */
function reference(q: Float64Array, k: Float64Array, v: Float64Array, shape: Shape, scale: number) {
  const { queries, heads, headDim } = shape;
  const row = heads * headDim;
  const keys = k.length / row;
  const o = new Float64Array(queries * row);
  const lse = new Float64Array(heads * queries);
  for (let head = 0; head < heads; head++) {
    for (let query = 0; query < queries; query++) {
      const scores = Float64Array.from({ length: keys }, (_, key) => {
        let sum = 0;
        for (let d = 0; d < headDim; d++) {
          sum += (q[query * row + head * headDim + d] ?? 0) * (k[key * row + head * headDim + d] ?? 0);
        }
        return sum * scale;
      });
      const largest = scores.reduce((a, b) => Math.max(a, b));
      const total = scores.reduce((sum, s) => sum + Math.exp(s - largest), 0);
      lse[head * queries + query] = largest + Math.log(total);
      for (let d = 0; d < headDim; d++) {
        let sum = 0;
        for (let key = 0; key < keys; key++) {
          sum += Math.exp((scores[key] ?? 0) - largest) * (v[key * row + head * headDim + d] ?? 0);
        }
        o[query * row + head * headDim + d] = sum / total;
      }
    }
  }
  return { o, lse };
}

/** Inputs, their reference, and a call that attends to a range of the blocks. */
function prepare(shape: Shape) {
  const { queries, heads, headDim, lengths, dtype = F32, oDtype = F32, size = 2 } = shape;
  const row = heads * headDim;
  const keys = lengths.reduce((a, b) => a + b);
  const scale = headDim ** -0.5;
  const q = sequence(queries * row, dtype, 1, size);
  const k = sequence(keys * row, dtype, 2, size);
  const v = sequence(keys * row, dtype, 3, size);
  // As a qkv linear leaves them: k and v beside each other in wider rows.
  const kvStride = 2 * row + 5;
  const kv = new Float64Array(keys * kvStride).fill(Number.NaN);
  for (let key = 0; key < keys; key++) {
    kv.set(k.subarray(key * row, (key + 1) * row), key * kvStride);
    kv.set(v.subarray(key * row, (key + 1) * row), key * kvStride + row);
  }
  const bytes = dtype === F32 ? 4 : 2;
  const base = upload(kv, dtype);
  let key = 0;
  const blocks = lengths.map((length) => {
    const at = base + key * kvStride * bytes;
    key += length;
    return { k: at, v: at + row * bytes, kStride: kvStride, vStride: kvStride, length };
  });
  const o = poisoned(queries * row, oDtype);
  const lse = poisoned(heads * queries, F32);
  const args = {
    q: upload(q, dtype),
    o,
    lse,
    qStride: row,
    oStride: row,
    queries,
    heads,
    headDim,
    dtype,
    oDtype,
    scale,
  };
  return { args, blocks, row, want: reference(q, k, v, shape, scale) };
}

describe("ditrun_attention on the CPU", () => {
  it.each([
    [BF16, "sums them before"],
    [F16, "sums them after"],
  ])("rounds probabilities to the values' dtype %i, and %s", (dtype) => {
    const score = -0.291015625; // exact in both; e^score lies between two steps of each
    const p = Math.exp(score);
    const kept = rounded(p * 256, dtype) / 256;
    expect(Math.abs(kept - p)).toBeGreaterThan(1e-5);
    const o = poisoned(1, F32);
    const sizes = { qStride: 1, oStride: 1, queries: 1, heads: 1, headDim: 1, scale: 1 };
    const [k, v] = [upload([0, score], dtype), upload([0, 16], dtype)];
    const block = { k, v, kStride: 1, vStride: 1, length: 2 };
    check(attention({ q: upload([1], dtype), o, ...sizes, dtype, oDtype: F32 }, [block]));
    const want = (16 * kept) / (1 + (dtype === BF16 ? p : kept));
    expect(Math.abs((download(o, 1, F32)[0] ?? 0) - want)).toBeLessThan(5e-6);
  });

  const shapes: Record<string, Shape> = {
    "one query, one key": { queries: 1, heads: 1, headDim: 8, lengths: [1] },
    "head dimension 32": { queries: 101, heads: 3, headDim: 32, lengths: [259] },
    "head dimension 64": { queries: 49, heads: 2, headDim: 64, lengths: [1057] },
    "head dimension 128": { queries: 7, heads: 2, headDim: 128, lengths: [33] },
    "an odd head dimension": { queries: 50, heads: 3, headDim: 23, lengths: [70] },
    "blocks of uneven lengths": { queries: 51, heads: 2, headDim: 32, lengths: [1, 77, 300, 1100, 16] },
    "scores of hundreds": { queries: 20, heads: 2, headDim: 32, lengths: [400], size: 30 },
  };
  for (const [name, shape] of Object.entries(shapes)) {
    it(`float32: ${name}`, () => {
      const { args, blocks, row, want } = prepare(shape);
      check(attention(args, blocks));
      expect(relativeL2(download(args.o, shape.queries * row, F32), want.o)).toBeLessThan(shape.size ? 2e-5 : 1e-6);
      const lse = download(args.lse, shape.heads * shape.queries, F32);
      expect(maxDifference(lse, want.lse)).toBeLessThan(shape.size ? 1e-3 : 3e-6);
    });
  }

  it("bf16: probabilities are rounded before they multiply V, the output once", () => {
    const shape = { queries: 60, heads: 2, headDim: 32, lengths: [200, 31], dtype: BF16, oDtype: BF16 };
    const { args, blocks, row, want } = prepare(shape);
    check(attention(args, blocks));
    const error = relativeL2(download(args.o, shape.queries * row, BF16), want.o);
    expect(error).toBeLessThan(4e-3);
    expect(error).toBeGreaterThan(1e-4);
    expect(relativeL2(download(args.lse, shape.heads * shape.queries, F32), want.lse)).toBeLessThan(1e-6);
  });

  // Probabilities times 2^8 are rounded to 11 bits, and their sum is of the rounded ones.
  for (const [name, size] of [
    ["random", 2],
    ["scores of hundreds", 30],
  ] as const) {
    it(`f16: probabilities are rounded eight times finer than in bf16, ${name}`, () => {
      const shape = { queries: 60, heads: 2, headDim: 32, lengths: [200, 31], dtype: F16, oDtype: F32, size };
      const { args, blocks, row, want } = prepare(shape);
      check(attention(args, blocks));
      const error = relativeL2(download(args.o, shape.queries * row, F32), want.o);
      expect(error).toBeLessThan(5e-4);
      expect(error).toBeGreaterThan(1e-6);
      expect(relativeL2(download(args.lse, shape.heads * shape.queries, F32), want.lse)).toBeLessThan(2e-5);
    });
  }

  it.each([
    ["query", "a key's sign decides", Number.POSITIVE_INFINITY],
    ["key", "its scores are -infinity", Number.NEGATIVE_INFINITY],
  ])("f16: an infinite %s shows as NaN, also where %s", (which, _why, infinite) => {
    const [row, keys, queries] = [8, 5, 3];
    const q = sequence(queries * row, F16, 1, 2).map(Math.abs);
    const k = sequence(keys * row, F16, 2, 2);
    (which === "key" ? k : q)[row + 3] = infinite;
    const o = poisoned(queries * row, F32);
    const strides = { qStride: row, oStride: row, queries, heads: 1, headDim: row };
    const args = { q: upload(q, F16), o, lse: 0, ...strides, dtype: F16, oDtype: F32, scale: 0.3 };
    const v = upload(sequence(keys * row, F16, 3, 2), F16);
    check(attention(args, [{ k: upload(k, F16), v, kStride: row, vStride: row, length: keys }]));
    const bad = Array.from({ length: queries }, (_, i) =>
      download(o, queries * row, F32)
        .slice(i * row, (i + 1) * row)
        .every(Number.isNaN),
    );
    expect(bad).toEqual(which === "key" ? [true, true, true] : [false, true, false]);
  });

  it("bf16: one key gives back its value exactly", () => {
    const shape = { queries: 3, heads: 2, headDim: 32, lengths: [1], dtype: BF16, oDtype: BF16 };
    const { args, blocks, row, want } = prepare(shape);
    check(attention(args, blocks));
    expect(
      maxDifference(
        download(args.o, 3 * row, BF16),
        want.o.map((x) => rounded(x, BF16)),
      ),
    ).toBe(0);
  });

  it("merges with a previous partial result, float32 kept in between", () => {
    const shape = { queries: 53, heads: 3, headDim: 32, lengths: [40, 300, 9] };
    const { args, blocks, row, want } = prepare(shape);
    const count = shape.queries * row;
    const partO = poisoned(count, F32);
    const partLse = poisoned(shape.heads * shape.queries, F32);
    check(attention({ ...args, o: partO, lse: partLse }, blocks.slice(0, 2)));
    check(attention({ ...args, previousO: partO, previousLse: partLse }, blocks.slice(2)));
    expect(relativeL2(download(args.o, count, F32), want.o)).toBeLessThan(1e-6);
    expect(relativeL2(download(args.lse, shape.heads * shape.queries, F32), want.lse)).toBeLessThan(1e-6);
  });

  it("needs no lse", () => {
    const { args, blocks, row, want } = prepare({ queries: 5, heads: 1, headDim: 16, lengths: [20] });
    check(attention({ ...args, lse: 0 }, blocks));
    expect(relativeL2(download(args.o, 5 * row, F32), want.o)).toBeLessThan(1e-6);
  });

  it("waits for each block's flag before it reads the block, and counts the wait", async () => {
    const shape = { queries: 10, heads: 2, headDim: 32, lengths: [30, 40] };
    const { args, blocks, row, want } = prepare(shape);
    const [own, travelling] = blocks;
    if (own === undefined || travelling === undefined) throw new Error("two blocks were made");
    const bytes = travelling.kStride * 40 * 4 - 5 * 4;
    const arriving = allocate(bytes, 1);
    const flag = upload([0], F32);
    const waited = allocate(16);
    check(raw.fillZero(waited, 16, stream));
    const second = { ...travelling, k: arriving, v: arriving + row * 4, flag };
    check(raw.streamSynchronize(stream));
    const queue = made((result) => raw.streamCreate(0, result));
    try {
      check(attention({ ...args, waitNanoseconds: waited }, [own, second], queue));
      const finished = streamSynchronizeAsync(queue);
      await new Promise((resolve) => setTimeout(resolve, 30));
      check(raw.copy(arriving, travelling.k, bytes, stream));
      check(raw.flagsWrite([flag], 1, 1, stream));
      check(await finished);
    } finally {
      check(raw.streamDestroy(queue));
    }
    expect(relativeL2(download(args.o, shape.queries * row, F32), want.o)).toBeLessThan(1e-6);
    const [first, nanoseconds] = new BigUint64Array(downloadBytes(waited, 16).buffer);
    expect(first).toBe(0n);
    expect(nanoseconds).toBeGreaterThan(0n);
    expect(downloadBytes(flag, 4)).toEqual(new Uint8Array([1, 0, 0, 0]));
  });

  it("refuses wrong arguments with their values", () => {
    const { args, blocks } = prepare({ queries: 2, heads: 2, headDim: 8, lengths: [3] });
    const wrong: [Record<string, number>, Record<string, number>, RegExp][] = [
      [{ headDim: 513 }, {}, /headDim is 513.*1 to 512/],
      [{ kernel: 3 }, {}, /kernel is 3/],
      [{ qStride: 15 }, {}, /qStride is 15 .* 2 heads of 8 has 16/],
      [{ dtype: 4 }, {}, /dtype 4 \(i32\) but must be one of f32, bf16, f16, e4m3/],
      [{ previousO: 256 }, {}, /previousLse/],
      [{}, { length: 0 }, /block 0 has length 0/],
      [{}, { flag: 6 }, /flag is at address 6/],
    ];
    for (const [change, blockChange, sentence] of wrong) {
      expect(
        attention(
          { ...args, ...change },
          blocks.map((block) => ({ ...block, ...blockChange })),
        ),
      ).toBe(1);
      expect(lastError()).toMatch(sentence);
    }
    expect(attention(args, [])).toBe(1);
    expect(lastError()).toMatch(/blockCount is 0 but must be 1 to 16/);
  });
});
