import { afterEach, describe, expect, it } from "vitest";
import {
  BF16,
  check,
  download,
  E4M3,
  F16,
  F32,
  freeAll,
  gemm,
  lastError,
  maxDifference,
  poisoned,
  relativeL2,
  rounded,
  sequence,
  upload,
} from "./module.js";

afterEach(freeAll);

/** erf by its series and, far out, its continued fraction: independent of the module's polynomials. */
function erf(x: number): number {
  const t = Math.abs(x);
  if (t > 3) {
    let fraction = 0;
    for (let n = 60; n > 0; n--) fraction = n / 2 / (t + fraction);
    return Math.sign(x) * (1 - Math.exp(-t * t) / Math.sqrt(Math.PI) / (t + fraction));
  }
  let term = x;
  let sum = x;
  for (let n = 1; n < 100; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}
const activations = [
  (x: number) => x,
  (x: number) => (x / 2) * (1 + erf(x / Math.SQRT2)),
  (x: number) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  (x: number) => x / (1 + Math.exp(-x)),
];

interface Case {
  m: number;
  n: number;
  k: number;
  batch?: number;
  sharedW?: boolean;
  dtype?: number;
  outDtype?: number;
  activation?: number;
  bias?: number;
  residual?: number;
  gate?: boolean;
  alpha?: number;
  /** E4M3 out only: of every row. */
  outScale?: (row: number) => number;
  /** E4M3 only: columns of A that share a scale. */
  aScaleColumns?: number;
}

/** Runs one product with padded rows and poisoned padding; returns what was stored and what should have been. */
function run(c: Case): { got: Float64Array; want: Float64Array; untouched: boolean } {
  const { m, n, k, batch = 1, sharedW = false, dtype = F32, outDtype = F32, activation = 0, alpha = 1 } = c;
  const lda = k + 3;
  const ldw = k + 5;
  const ldo = n + 7;
  const ldResidual = n + 1;
  const wBatches = sharedW ? 1 : batch;
  const a = sequence(batch * m * lda, dtype, 1);
  const w = sequence(wBatches * n * ldw, dtype, 2);
  const bias = sequence(batch * n, c.bias ?? F32, 3);
  const residual = sequence(batch * m * ldResidual, c.residual ?? F32, 4);
  const gate = sequence(n, F32, 7);
  const { aScaleColumns = 0 } = c;
  const scalesOfRow = aScaleColumns > 0 ? k / aScaleColumns : 1;
  const aScale = sequence(batch * m * scalesOfRow, F32, 5);
  const wScale = sequence(wBatches * n, F32, 6);
  const scaled = dtype === E4M3;
  for (let row = 0; row < batch * m; row++) a.fill(Number.NaN, row * lda + k, (row + 1) * lda);
  for (let row = 0; row < wBatches * n; row++) w.fill(Number.NaN, row * ldw + k, (row + 1) * ldw);
  const out = poisoned(batch * m * ldo, outDtype);
  check(
    gemm({
      ...{ m, n, k, batch, dtype, outDtype, activation, alpha, lda, ldw, ldo, ldResidual, out, aScaleColumns },
      a: upload(a, dtype),
      w: upload(w, dtype),
      bias: c.bias === undefined ? 0 : upload(bias, c.bias),
      biasDtype: c.bias ?? F32,
      residual: c.residual === undefined ? 0 : upload(residual, c.residual),
      residualDtype: c.residual ?? F32,
      gate: c.gate ? upload(gate, F32) : 0,
      aScale: scaled ? upload(aScale, F32) : 0,
      wScale: scaled ? upload(wScale, F32) : 0,
      outScale: c.outScale
        ? upload(
            Float64Array.from({ length: batch * m }, (_, row) => c.outScale?.(row) ?? 0),
            F32,
          )
        : 0,
      aStride: m * lda,
      wStride: sharedW ? 0 : n * ldw,
      biasStride: n,
      outStride: m * ldo,
      residualStride: m * ldResidual,
    }),
  );
  const stored = download(out, batch * m * ldo, outDtype);
  const got = new Float64Array(batch * m * n);
  const want = new Float64Array(batch * m * n);
  let untouched = true;
  for (let row = 0; row < batch * m; row++) {
    const b = Math.floor(row / m);
    const wb = sharedW ? 0 : b;
    for (let column = 0; column < n; column++) {
      let sum = 0;
      for (let i = 0; i < k; i++) {
        const scale = scaled ? (aScale[row * scalesOfRow + Math.floor((i * scalesOfRow) / k)] ?? 0) : 1;
        sum += scale * (a[row * lda + i] ?? 0) * (w[(wb * n + column) * ldw + i] ?? 0);
      }
      sum *= alpha * (scaled ? (wScale[wb * n + column] ?? 0) : 1);
      if (c.bias !== undefined) sum += bias[b * n + column] ?? 0;
      sum = activations[activation]?.(sum) ?? Number.NaN;
      if (c.gate) sum *= gate[column] ?? Number.NaN;
      if (c.residual !== undefined) sum += residual[row * ldResidual + column] ?? 0;
      want[row * n + column] = sum;
      got[row * n + column] = stored[row * ldo + column] ?? 0;
    }
    for (let column = n; column < ldo; column++) untouched &&= Number.isNaN(stored[row * ldo + column]);
  }
  return { got, want, untouched };
}

describe("ditrun_gemm on the CPU", () => {
  const float32: Record<string, Case> = {
    "one element": { m: 1, n: 1, k: 1 },
    "one row, as a conditioning vector": { m: 1, n: 77, k: 515, bias: F32, activation: 3 },
    "five rows": { m: 5, n: 130, k: 70, batch: 3, bias: BF16, residual: F32 },
    "odd sizes over several strips and depths": { m: 101, n: 275, k: 521 },
    "exact GELU": { m: 50, n: 33, k: 65, activation: 1, bias: F32 },
    "GELU by tanh": { m: 13, n: 33, k: 65, activation: 2, bias: F32 },
    "SiLU with a residual": { m: 13, n: 33, k: 65, activation: 3, residual: BF16, alpha: -0.75 },
    "a gate after SiLU, before the residual": {
      m: 13,
      n: 333,
      k: 65,
      activation: 3,
      bias: F32,
      gate: true,
      residual: F32,
    },
    "a gate over few rows, one for all batches": { m: 3, n: 77, k: 40, batch: 2, gate: true },
    "a batch": { m: 9, n: 17, k: 31, batch: 4, bias: F32, residual: F32 },
    "a batch with one W": { m: 9, n: 17, k: 31, batch: 4, sharedW: true },
    "a W too large to pack at once": { m: 7, n: 300, k: 17000 },
    "a batch whose one W is too large to pack at once": { m: 6, n: 300, k: 17000, batch: 2, sharedW: true },
  };
  for (const [name, one] of Object.entries(float32)) {
    it(`float32: ${name}`, () => {
      const { got, want, untouched } = run(one);
      expect(relativeL2(got, want)).toBeLessThan(2e-6);
      expect(untouched).toBe(true);
    });
  }

  it("bf16: products are exact, the sum is float32, the result is rounded once", () => {
    const { got, want, untouched } = run({
      m: 53,
      n: 70,
      k: 129,
      dtype: BF16,
      outDtype: BF16,
      bias: BF16,
      residual: BF16,
    });
    let differing = 0;
    got.forEach((x, index) => {
      const exact = want[index] ?? 0;
      // A sum next to the middle between two bf16 numbers may fall to either side.
      expect(Math.abs(x - exact)).toBeLessThan(2 ** -7.9 * Math.max(Math.abs(exact), 2 ** -8));
      differing += x === rounded(exact, BF16) ? 0 : 1;
    });
    expect(differing / got.length).toBeLessThan(0.005);
    expect(untouched).toBe(true);
  });

  it.for([F16, F32])(
    "f16: products are exact, the sum is float32, the result is rounded once, to dtype %i",
    (outDtype) => {
      const { got, want, untouched } = run({ m: 53, n: 70, k: 129, dtype: F16, outDtype, bias: F16, residual: F16 });
      expect(relativeL2(got, want)).toBeLessThan(outDtype === F32 ? 2e-6 : 4e-4);
      expect(untouched).toBe(true);
    },
  );

  it("f16 is multiplied to f16 or float32, with nothing of bf16", () => {
    const size = { m: 4, n: 4, k: 4, lda: 4, ldw: 4, ldo: 4, a: 256, w: 256, out: 256, dtype: F16 };
    expect(gemm({ ...size, outDtype: BF16 })).toBe(1);
    expect(lastError()).toContain("one tensor is bf16 and another f16");
    expect(gemm({ ...size, outDtype: F16, bias: 256, biasDtype: BF16 })).toBe(1);
    expect(lastError()).toContain("biasDtype is dtype 1 (bf16) but must be one of f32, f16");
  });

  it("to f16: rounded once, to nearest even; what it cannot hold is infinite", () => {
    const { got, want } = run({ m: 53, n: 70, k: 129, dtype: BF16, outDtype: F16, bias: F32 });
    got.forEach((x, index) => {
      const exact = want[index] ?? 0;
      expect(Math.abs(x - exact)).toBeLessThan(2 ** -10.9 * Math.max(Math.abs(exact), 2 ** -10));
    });
    const large = run({ m: 53, n: 70, k: 129, dtype: BF16, outDtype: F16, alpha: 1e5 });
    large.got.forEach((x, index) => {
      const exact = large.want[index] ?? 0;
      if (Math.abs(exact) > 65521) expect(x).toBe(Math.sign(exact) * Number.POSITIVE_INFINITY);
      else if (Math.abs(exact) < 65519) expect(Number.isFinite(x)).toBe(true);
    });
    expect(large.got.some((x) => !Number.isFinite(x))).toBe(true);
  });

  for (const m of [3, 53]) {
    it(`e4m3 with ${m} rows: exact products, then both scales`, () => {
      const { got, want } = run({ m, n: 70, k: 129, batch: 2, dtype: E4M3, bias: F32, alpha: 1.5 });
      expect(relativeL2(got, want)).toBeLessThan(2e-6);
    });
  }

  for (const m of [3, 53]) {
    it(`e4m3 with ${m} rows of several scales each`, () => {
      const shape = {
        m,
        n: 70,
        k: 129,
        batch: 2,
        dtype: E4M3,
        aScaleColumns: 43,
        bias: F32,
        residual: F32,
        gate: true,
      };
      const { got, want } = run(shape);
      expect(relativeL2(got, want)).toBeLessThan(2e-6);
    });
  }

  it("e4m3 to e4m3: by the reciprocals of given scales, rounded once, saturating", () => {
    const shape = { m: 53, n: 70, k: 129, batch: 2, dtype: E4M3, bias: F32, activation: 2 };
    const exact = run({ ...shape, outDtype: F32 });
    const most = Math.max(...exact.want.map(Math.abs));
    // The last rows' scale is too small for their largest values.
    const outScale = (row: number) => Math.fround((most / 448) * (row < 100 ? 1 + (row % 5) * 7 : 0.2));
    const { got, untouched } = run({ ...shape, outDtype: E4M3, outScale });
    const want = exact.got.map((value, index) =>
      rounded(Math.fround(value * Math.fround(1 / outScale(Math.floor(index / shape.n)))), E4M3),
    );
    expect(maxDifference(got, want)).toBe(0);
    expect(Math.max(...got)).toBe(448);
    expect(untouched).toBe(true);
  });

  it("adds a residual in place, the product gated", () => {
    const { m, n, k } = { m: 20, n: 40, k: 24 };
    const a = sequence(m * k, F32, 1);
    const w = sequence(n * k, F32, 2);
    const x = sequence(m * n, F32, 3);
    const gate = sequence(n, F32, 4);
    const out = upload(x, F32);
    const shape = { m, n, k, lda: k, ldw: k, ldo: n, ldResidual: n };
    check(gemm({ ...shape, a: upload(a, F32), w: upload(w, F32), out, residual: out, gate: upload(gate, F32) }));
    const want = x.map((before, index) => {
      const row = Math.floor(index / n);
      let sum = 0;
      for (let i = 0; i < k; i++) sum += (a[row * k + i] ?? 0) * (w[(index % n) * k + i] ?? 0);
      return before + sum * (gate[index % n] ?? Number.NaN);
    });
    expect(relativeL2(download(out, m * n, F32), want)).toBeLessThan(1e-6);
  });

  it("refuses wrong arguments with their values", () => {
    const good = { a: 256, w: 256, out: 256, m: 2, n: 3, k: 4, lda: 4, ldw: 4, ldo: 3 };
    const wrong: [Record<string, number>, RegExp][] = [
      [{ k: 0 }, /2, 3, 0, 1/],
      [{ lda: 3 }, /lda is 3 .* k = 4/],
      [{ dtype: 4 }, /dtype 4 \(i32\).*f32, bf16, e4m3/],
      [{ outDtype: E4M3 }, /outDtype/],
      [{ dtype: E4M3 }, /aScale is 0/],
      [{ dtype: E4M3, outDtype: E4M3, aScale: 256, wScale: 256 }, /outScale is 0/],
      [{ dtype: E4M3, outDtype: E4M3, outScale: 256, gate: 256 }, /no residual \(0\) and no gate \(256\)/],
      [{ aScaleColumns: 2 }, /aScaleColumns is 2 but must divide k/],
      [{ activation: 9 }, /activation is 9/],
      [{ out: 0 }, /out is 0/],
      [{ gate: 2 }, /gate is at address 2/],
      [{ kernel: 1 }, /kernel is 1/],
      [{ a: 257 }, /257.*4 bytes/],
      [{ batch: 2 }, /outStride is 0/],
    ];
    for (const [change, sentence] of wrong) {
      expect(gemm({ ...good, ...change })).toBe(1);
      expect(lastError()).toMatch(sentence);
    }
  });
});
