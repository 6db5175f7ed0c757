import type { Model } from "../models/schema.js";

/** A model's output: [channels, height, width] or [channels, frames, height, width], perhaps with a 1 in front. */
export interface OutputTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Runs of tokens that are looked at each by itself: as many as ranks can share the tokens of a ring over peer copies. */
export const REGIONS = 16;

/** Differences of two outputs by token; each over the root mean square length of an expected token. */
export interface TokenDifferences {
  /** ‖mean over the run's tokens of (actual - expected)‖, of the worst of REGIONS runs of tokens. */
  readonly region: number;
  /** ‖actual - expected‖ of the worst token. */
  readonly token: number;
  /** Tokens of the shortest run. */
  readonly tokensOfRegion: number;
}

/**
 * How far two outputs are apart by token: what one patch gives, in all channels. Rounding is another in each token and averages
 * out over a run of them; what is broken is wrong in the same way in all of them, or in all of a rank's share.
 */
export function tokenDifferences(model: Model, actual: OutputTensor, expected: OutputTensor): TokenDifferences {
  const [height = 1, width = 1] = expected.shape.slice(-2);
  const { patch, channels } = model;
  const across = width / patch;
  const plane = height * width;
  const frames = expected.data.length / (channels * plane);
  const tokens = (frames * plane) / patch ** 2;
  const values = channels * patch ** 2;
  const regions = Math.min(REGIONS, tokens);

  const sums = new Float64Array(regions * values);
  const squares = new Float64Array(tokens);
  let expectedSquares = 0;
  let index = 0;
  for (let channel = 0; channel < channels; channel++) {
    for (let frame = 0; frame < frames; frame++) {
      for (let y = 0; y < height; y++) {
        const row = (frame * height) / patch + Math.floor(y / patch);
        const inToken = (channel * patch + (y % patch)) * patch;
        for (let x = 0; x < width; x++, index++) {
          const wanted = expected.data[index] ?? Number.NaN;
          const apart = (actual.data[index] ?? Number.NaN) - wanted;
          const token = row * across + Math.floor(x / patch);
          const sum = Math.floor((token * regions) / tokens) * values + inToken + (x % patch);
          sums[sum] = (sums[sum] ?? 0) + apart;
          squares[token] = (squares[token] ?? 0) + apart * apart;
          expectedSquares += wanted * wanted;
        }
      }
    }
  }
  const length = Math.sqrt(expectedSquares / tokens);
  const over = (value: number) => (value === 0 ? 0 : value / length);
  let region = 0;
  for (let run = 0; run < regions; run++) {
    const first = Math.ceil((run * tokens) / regions);
    const count = Math.ceil(((run + 1) * tokens) / regions) - first;
    const means = sums.subarray(run * values, (run + 1) * values);
    region = Math.max(region, Math.sqrt(means.reduce((total, sum) => total + (sum / count) ** 2, 0)));
  }
  const worst = squares.reduce((most, square) => Math.max(most, square), 0);
  return { region: over(region), token: over(Math.sqrt(worst)), tokensOfRegion: Math.floor(tokens / regions) };
}
