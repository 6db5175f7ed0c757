import { afterEach, describe, expect, it } from "vitest";
import { BF16, check, download, F32, fillRandom, freeAll, lastError, poisoned, rounded } from "./kernels-cpu-module.js";

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
const normalScale = f(1 / Math.sqrt((8 * (65536 ** 2 - 1)) / 12));
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
  const sum = words.reduce((total, word) => total + (word & 0xffff) + (word >>> 16), 0);
  return f(f(f(amplitude * (sum - 262140)) * normalScale) + f(t.offset));
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

  it("refuses a part that lies outside of the tensor", () => {
    const place = { seed: 0, rows: 1, columns: 4, column0: 2, fullColumns: 5, ldo: 4, out: 256 };
    expect(fillRandom(place)).toBe(1);
    expect(lastError()).toMatch(/columns 2 to 6 do not lie in a tensor of 5 columns/);
  });
});
