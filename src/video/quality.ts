// How alike two pictures are, in float64. Values are of 8 bits.

const PEAK = 255;

/** Mean of the squared differences of two pictures, or of any values of one length. */
export function meanSquaredError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += ((a[i] ?? Number.NaN) - (b[i] ?? Number.NaN)) ** 2;
  return sum / a.length;
}

/** Peak signal-to-noise ratio in dB, 10 · log10(peak² / mse); infinite for equal pictures. */
export function psnrOf(mse: number, peak = PEAK): number {
  return 10 * Math.log10(peak ** 2 / mse);
}

/** Luma of an RGB picture: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), not rounded. */
export function lumaOf(rgb: Uint8Array): Float64Array {
  return Float64Array.from({ length: rgb.length / 3 }, (_, pixel) => {
    const [red = 0, green = 0, blue = 0] = [rgb[3 * pixel], rgb[3 * pixel + 1], rgb[3 * pixel + 2]];
    return 0.299 * red + 0.587 * green + 0.114 * blue;
  });
}

/** Side of the window in pixels; smaller pictures have no SSIM. */
export const SSIM_WINDOW = 11;
const SIGMA = 1.5;
const [C1, C2] = [(0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2];

const window = (() => {
  const half = (SSIM_WINDOW - 1) / 2;
  const weights = Array.from({ length: SSIM_WINDOW }, (_, i) => Math.exp(-((i - half) ** 2) / (2 * SIGMA ** 2)));
  const sum = weights.reduce((a, b) => a + b);
  return Float64Array.from(weights, (weight) => weight / sum);
})();

/** Weighted means over the window, wherever all of it lies within the picture: (width - 10) × (height - 10). */
function blurred(x: Float64Array, width: number, height: number): Float64Array {
  const [columns, rows] = [width - SSIM_WINDOW + 1, height - SSIM_WINDOW + 1];
  const across = new Float64Array(columns * height);
  for (let y = 0; y < height; y++) {
    for (let column = 0; column < columns; column++) {
      let sum = 0;
      for (let i = 0; i < SSIM_WINDOW; i++) sum += (window[i] ?? 0) * (x[y * width + column + i] ?? 0);
      across[y * columns + column] = sum;
    }
  }
  const out = new Float64Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let sum = 0;
      for (let i = 0; i < SSIM_WINDOW; i++) sum += (window[i] ?? 0) * (across[(row + i) * columns + column] ?? 0);
      out[row * columns + column] = sum;
    }
  }
  return out;
}

/**
 * Structural similarity of two pictures of one channel, the mean over all places of a Gaussian window of 11 × 11 with σ 1.5, with
 * K1 = 0.01 and K2 = 0.03 (Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 13(4), 2004): 1 for equal ones.
 * @throws RangeError for pictures that are smaller than the window.
 */
export function ssim(a: Float64Array, b: Float64Array, width: number, height: number): number {
  if (Math.min(width, height) < SSIM_WINDOW) {
    throw new RangeError(`SSIM needs pictures of at least ${SSIM_WINDOW} × ${SSIM_WINDOW}, not ${width} × ${height}.`);
  }
  const mean = (x: Float64Array) => blurred(x, width, height);
  const product = (x: Float64Array, y: Float64Array) => mean(x.map((value, i) => value * (y[i] ?? 0)));
  const [ma, mb, aa, bb, ab] = [mean(a), mean(b), product(a, a), product(b, b), product(a, b)];
  let sum = 0;
  for (let i = 0; i < ma.length; i++) {
    const [ua = 0, ub = 0, saa = 0, sbb = 0, sab = 0] = [ma[i], mb[i], aa[i], bb[i], ab[i]];
    const [varianceA, varianceB, covariance] = [saa - ua * ua, sbb - ub * ub, sab - ua * ub];
    sum += ((2 * ua * ub + C1) * (2 * covariance + C2)) / ((ua * ua + ub * ub + C1) * (varianceA + varianceB + C2));
  }
  return sum / ma.length;
}
