import type { Colour } from "./colour.js";

/**
 * RGB, 8 bits each, [height, width, 3], to planar YCbCr 4:2:0 of limited range: luma [height, width], then Cb and Cr
 * [height / 2, width / 2], each of the mean colour of four pixels. Sums are in 16-bit fixed point, rounded once.
 * Source: ITU-T H.273, equations for MatrixCoefficients 1 and 6.
 */
export function rgbToYuv420(rgb: Uint8Array, width: number, height: number, { red, blue }: Colour): Uint8Array {
  const fixed = (weight: number) => Math.round(weight * 65_536);
  const luma = 219 / 255;
  const [yr, yb] = [fixed(luma * red), fixed(luma * blue)];
  const yg = fixed(luma) - yr - yb;
  const cb = 224 / 255 / (2 * (1 - blue));
  const cr = 224 / 255 / (2 * (1 - red));
  const [br, bb] = [fixed(-cb * red), fixed(cb * (1 - blue))];
  const [rr, rb] = [fixed(cr * (1 - red)), fixed(-cr * blue)];
  // Grey has no chroma, so the three weights of each sum to nothing.
  const [bg, rg] = [-br - bb, -rr - rb];
  const lumaOf = (r: number, g: number, b: number) => 16 + ((yr * r + yg * g + yb * b + 32_768) >> 16);
  const pixels = width * height;
  const quarter = pixels / 4;
  const out = new Uint8Array((pixels * 3) / 2);
  let chroma = pixels;
  for (let y = 0; y < height; y += 2) {
    // The four pixels are written out: a loop over them takes half as long again.
    let at = y * width;
    let upper = 3 * at;
    let lower = upper + 3 * width;
    for (let x = 0; x < width; x += 2) {
      const [r0, g0, b0] = [rgb[upper] ?? 0, rgb[upper + 1] ?? 0, rgb[upper + 2] ?? 0];
      const [r1, g1, b1] = [rgb[upper + 3] ?? 0, rgb[upper + 4] ?? 0, rgb[upper + 5] ?? 0];
      const [r2, g2, b2] = [rgb[lower] ?? 0, rgb[lower + 1] ?? 0, rgb[lower + 2] ?? 0];
      const [r3, g3, b3] = [rgb[lower + 3] ?? 0, rgb[lower + 4] ?? 0, rgb[lower + 5] ?? 0];
      out[at] = lumaOf(r0, g0, b0);
      out[at + 1] = lumaOf(r1, g1, b1);
      out[at + width] = lumaOf(r2, g2, b2);
      out[at + width + 1] = lumaOf(r3, g3, b3);
      const [r, g, b] = [r0 + r1 + r2 + r3, g0 + g1 + g2 + g3, b0 + b1 + b2 + b3];
      out[chroma] = 128 + ((br * r + bg * g + bb * b + 131_072) >> 18);
      out[chroma + quarter] = 128 + ((rr * r + rg * g + rb * b + 131_072) >> 18);
      chroma++;
      at += 2;
      upper += 6;
      lower += 6;
    }
  }
  return out;
}
