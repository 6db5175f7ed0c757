import { expect, test } from "vitest";
import { lumaOf, meanSquaredError, psnrOf, SSIM_WINDOW, ssim } from "../../../src/video/quality.js";

test("PSNR is of the mean squared difference and the peak", () => {
  expect(meanSquaredError([0, 10, 20], [0, 12, 16])).toBeCloseTo(20 / 3, 12);
  // 20 · log10(255) - 10 · log10(1)
  expect(psnrOf(1)).toBeCloseTo(48.130803608679344, 12);
  expect(psnrOf(0)).toBe(Number.POSITIVE_INFINITY);
  expect(meanSquaredError([1, 2], [1])).toBeNaN();
});

test("luma is BT.601's, in float64", () => {
  expect([...lumaOf(Uint8Array.of(255, 0, 0, 0, 255, 0, 0, 0, 255))]).toEqual([0.299 * 255, 0.587 * 255, 0.114 * 255]);
});

/** The paper's formula as it stands: window by window, weights of two dimensions, variances about the mean. */
function plainSsim(a: Float64Array, b: Float64Array, width: number, height: number): number {
  const weight = (x: number, y: number) => Math.exp(-((x - 5) ** 2 + (y - 5) ** 2) / (2 * 1.5 ** 2));
  const places = Array.from({ length: 121 }, (_, i) => [i % 11, Math.floor(i / 11)] as const);
  const total = places.reduce((sum, [x, y]) => sum + weight(x, y), 0);
  const values: number[] = [];
  for (let top = 0; top + 11 <= height; top++) {
    for (let left = 0; left + 11 <= width; left++) {
      const mean = (of: (index: number) => number) =>
        places.reduce((sum, [x, y]) => sum + (weight(x, y) / total) * of((top + y) * width + left + x), 0);
      const [ua, ub] = [mean((i) => a[i] ?? 0), mean((i) => b[i] ?? 0)];
      const variance = (x: Float64Array, u: number) => mean((i) => ((x[i] ?? 0) - u) ** 2);
      const covariance = mean((i) => ((a[i] ?? 0) - ua) * ((b[i] ?? 0) - ub));
      const [c1, c2] = [6.5025, 58.5225];
      values.push(
        ((2 * ua * ub + c1) * (2 * covariance + c2)) /
          ((ua ** 2 + ub ** 2 + c1) * (variance(a, ua) + variance(b, ub) + c2)),
      );
    }
  }
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

test("SSIM is what the paper's formula gives", () => {
  const [width, height] = [17, 13];
  const a = Float64Array.from({ length: width * height }, (_, i) => 128 + 100 * Math.sin(i / 7));
  const b = a.map((value, i) => value + 30 * Math.cos(i * 1.7));
  const found = ssim(a, b, width, height);
  expect(found).toBeCloseTo(plainSsim(a, b, width, height), 10);
  expect(found).toBeGreaterThan(0);
  expect(found).toBeLessThan(0.97);
  expect(ssim(a, a, width, height)).toBeCloseTo(1, 12);
  expect(() => ssim(a, b, SSIM_WINDOW - 1, height)).toThrow("at least 11 × 11");
});
