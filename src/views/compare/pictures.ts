import { figures, threeDigits } from "../figures.js";

/** How one frame of two videos differs. */
export interface FrameDifference {
  readonly mse: number;
  /** Null for pictures smaller than SSIM's window. */
  readonly ssim: number | null;
}

export interface VideoComparison {
  readonly kind: "videos";
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  /** dB over all frames; null where they are equal. */
  readonly psnr: number | null;
  readonly ssim: number | null;
  /** ‖b - a‖ / ‖a‖ of all values, in per cent. */
  readonly differencePercent: number;
  /** Of each frame; psnr is null where it is equal. */
  readonly byFrame: readonly { readonly frame: number; readonly psnr: number | null; readonly ssim: number | null }[];
  /** From 1; null where all are equal. */
  readonly firstApart: number | null;
  readonly verdict: string;
}

const decibels = (mse: number) => (mse === 0 ? null : 10 * Math.log10(255 ** 2 / mse));

/** @param differences of each frame. @param meanSquare mean of the squared values of the first video. */
export function videoComparison(
  size: { readonly width: number; readonly height: number },
  differences: readonly FrameDifference[],
  meanSquare: number,
): VideoComparison {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const mse = mean(differences.map((each) => each.mse));
  const similar = differences.map((each) => each.ssim);
  const known = similar.filter((value) => value !== null);
  const index = differences.findIndex((each) => each.mse > 0);
  const psnr = decibels(mse);
  const ssim = known.length === similar.length ? mean(known) : null;
  const firstApart = index === -1 ? null : index + 1;
  return {
    ...{ kind: "videos", ...size, frames: differences.length, psnr, ssim, firstApart },
    differencePercent: meanSquare === 0 ? (mse === 0 ? 0 : 100) : 100 * Math.sqrt(mse / meanSquare),
    byFrame: differences.map((each, frame) => ({ frame: frame + 1, psnr: decibels(each.mse), ssim: each.ssim })),
    verdict:
      psnr === null
        ? "the videos are equal, pixel for pixel."
        : `the videos differ from frame ${firstApart} on: PSNR ${threeDigits(psnr)} dB${ssim === null ? "" : `, SSIM ${figures(ssim)}`}.`,
  };
}
