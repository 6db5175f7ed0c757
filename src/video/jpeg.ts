import { encode } from "jpeg-js";

/** A picture: RGB of 8 bits, [height, width, 3]. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

/** A JPEG file of the picture. @param quality 1 to 100. */
export function encodeJpeg({ width, height, pixels }: Picture, quality: number): Uint8Array {
  const rgba = new Uint8Array(4 * width * height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let colour = 0; colour < 3; colour++) rgba[4 * pixel + colour] = pixels[3 * pixel + colour] ?? 0;
  }
  return encode({ width, height, data: rgba }, quality).data;
}

/** The picture at a fraction of its size: each pixel is the mean of `factor` × `factor`; what is left at the edges is cut off. */
export function shrink({ width, height, pixels }: Picture, factor: number): Picture {
  const small = { width: Math.floor(width / factor), height: Math.floor(height / factor) };
  const sums = new Float32Array(3 * small.width * small.height);
  for (let y = 0; y < small.height * factor; y++) {
    const row = Math.floor(y / factor) * small.width;
    for (let x = 0; x < small.width * factor; x++) {
      const to = 3 * (row + Math.floor(x / factor));
      const from = 3 * (y * width + x);
      for (let colour = 0; colour < 3; colour++)
        sums[to + colour] = (sums[to + colour] ?? 0) + (pixels[from + colour] ?? 0);
    }
  }
  return { ...small, pixels: Uint8Array.from(sums, (sum) => Math.round(sum / factor ** 2)) };
}

/** Pictures of one size side by side, `columns` a row; what is left of the last row is black. */
export function tiled(pictures: readonly Picture[], columns: number): Picture {
  const [{ width, height } = { width: 0, height: 0 }] = pictures;
  const across = Math.min(columns, pictures.length);
  const whole = { width: across * width, height: Math.ceil(pictures.length / columns) * height };
  const pixels = new Uint8Array(3 * whole.width * whole.height);
  pictures.forEach((picture, index) => {
    const left = (index % columns) * width;
    const top = Math.floor(index / columns) * height;
    for (let line = 0; line < height; line++) {
      const from = picture.pixels.subarray(3 * line * width, 3 * (line + 1) * width);
      pixels.set(from, 3 * ((top + line) * whole.width + left));
    }
  });
  return { ...whole, pixels };
}
