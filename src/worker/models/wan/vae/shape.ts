// The shape of Wan 2.1's VAE (Wan2.1, wan/modules/vae.py, _video_vae); only its width is read off the checkpoint.

export const LATENT_CHANNELS = 16;
export const PIXEL_CHANNELS = 3;
/** Channels of each level, from full resolution down, in widths. */
export const CHANNEL_MULTIPLIERS = [1, 2, 4, 4] as const;
/** In each level of the encoder; the decoder has one more. */
export const RESIDUAL_BLOCKS = 2;
/** Whether the downsampling after each level also halves the frames. */
export const TEMPORAL_DOWNSAMPLE = [false, true, true] as const;
/** Pixels of a latent's side, and frames of a latent frame (the first one aside, which stands for one). */
export const SPATIAL_FACTOR = 8;
export const TEMPORAL_FACTOR = 4;

/** Mean and standard deviation of each latent channel over the training videos (Wan2.1, wan/modules/vae.py, WanVAE). */
export const latentMean = Float32Array.of(
  ...[-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508],
  ...[0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921],
);
export const latentStd = Float32Array.of(
  ...[2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743],
  ...[3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916],
);

/** A value of the encoder's latent, to the one that the transformer knows; float32. The decoder takes x · std + mean. */
export function normalise(value: number, channel: number): number {
  const [mean = Number.NaN, std = Number.NaN] = [latentMean[channel], latentStd[channel]];
  return Math.fround(Math.fround(value - mean) / std);
}
