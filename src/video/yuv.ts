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
  const pixels = width * height;
  const out = new Uint8Array((pixels * 3) / 2);
  const row = 3 * width;
  let chroma = pixels;
  for (let y = 0; y < height; y += 2) {
    for (let x = 0; x < width; x += 2) {
      let [r4, g4, b4] = [0, 0, 0];
      for (let corner = 0; corner < 4; corner++) {
        const [line, column] = [y + (corner >> 1), x + (corner & 1)];
        const from = line * row + 3 * column;
        const r = rgb[from] ?? 0;
        const g = rgb[from + 1] ?? 0;
        const b = rgb[from + 2] ?? 0;
        out[line * width + column] = 16 + ((yr * r + yg * g + yb * b + 32_768) >> 16);
        r4 += r;
        g4 += g;
        b4 += b;
      }
      out[chroma] = 128 + ((br * r4 + bg * g4 + bb * b4 + 131_072) >> 18);
      out[chroma + pixels / 4] = 128 + ((rr * r4 + rg * g4 + rb * b4 + 131_072) >> 18);
      chroma++;
    }
  }
  return out;
}
