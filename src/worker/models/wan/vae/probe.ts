import type { LatentSize } from "../../../../models/schema.js";
import { torchCpuNoise } from "../../../../sampling/torch-cpu-noise.js";
import { LATENT_CHANNELS, PIXEL_CHANNELS, SPATIAL_FACTOR } from "./shape.js";

/** Of a binomial filter over 3 × 3 pixels of noise: what it leaves of the standard deviation. */
const LEFT = 3 / 8;

/**
 * Latents that are none of a video, but vary as one: noise of standard deviation 1 that is smooth over neighbouring pixels.
 * @returns [frames, height · width, 16], the same on every rank.
 */
export function probeLatents({ frames, height, width }: LatentSize, seed = 0n): Float32Array {
  const pixels = height * width;
  const noise = torchCpuNoise(seed, frames * pixels * LATENT_CHANNELS);
  const out = new Float32Array(noise.length);
  const weights = [1 / 4, 1 / 2, 1 / 4];
  for (let frame = 0; frame < frames; frame++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const to = (frame * pixels + y * width + x) * LATENT_CHANNELS;
        weights.forEach((down, dy) => {
          weights.forEach((right, dx) => {
            const row = within(y + dy - 1, height);
            const column = within(x + dx - 1, width);
            const from = (frame * pixels + row * width + column) * LATENT_CHANNELS;
            for (let channel = 0; channel < LATENT_CHANNELS; channel++) {
              out[to + channel] = (out[to + channel] ?? 0) + ((down * right) / LEFT) * (noise[from + channel] ?? 0);
            }
          });
        });
      }
    }
  }
  return out;
}

/** Beyond an edge its pixel is taken again. */
const within = (index: number, count: number) => Math.min(count - 1, Math.max(0, index));

/** The mean colour of what each latent pixel was decoded to. @param picture [8 · height, 8 · width, 3]. @returns [height · width, 3]. */
export function meanColours(
  picture: Uint8Array,
  { height, width }: Pick<LatentSize, "height" | "width">,
): Float32Array {
  const means = new Float32Array(height * width * PIXEL_CHANNELS);
  const lineValues = SPATIAL_FACTOR * width * PIXEL_CHANNELS;
  for (let line = 0; line < SPATIAL_FACTOR * height; line++) {
    const row = Math.floor(line / SPATIAL_FACTOR) * width;
    for (let value = 0; value < lineValues; value++) {
      const column = Math.floor(value / (SPATIAL_FACTOR * PIXEL_CHANNELS));
      const at = (row + column) * PIXEL_CHANNELS + (value % PIXEL_CHANNELS);
      means[at] = (means[at] ?? 0) + (picture[line * lineValues + value] ?? 0) / SPATIAL_FACTOR ** 2;
    }
  }
  return means;
}
