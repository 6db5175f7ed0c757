/** Of Wan 2.2 A14B two transformers of the same sizes take turns: one for high noise, one for low. Wan 2.1 has the first alone. */
export const experts = ["high", "low"] as const;
export type Expert = (typeof experts)[number];

/** Steps of the second transformer. */
interface LowNoise {
  /** Of the 1000 time steps: below this part of them. */
  readonly boundary: number;
  readonly guideScale: number;
}

/** What the choice of a step's transformer needs to know of sampling. */
interface Guided {
  readonly guideScale: number;
  readonly low?: LowNoise | undefined;
}

/**
 * Whose a step is: high from the time step 1000 · boundary on.
 * @param timestep as the transformer gets it, cut to a whole number where the schedule does so. Source: generate in wan/text2video.py of Wan 2.2.
 */
export function expertOf(timestep: number, { low }: Guided): Expert {
  return low === undefined || timestep >= 1000 * low.boundary ? "high" : "low";
}

/** How much the prompt counts in this transformer's steps. */
export function guideScaleOf(expert: Expert, { guideScale, low }: Guided): number {
  return expert === "low" && low !== undefined ? low.guideScale : guideScale;
}

/** Whether no step looks at the negative prompt: guidance is 1 throughout. */
export function isUnguided({ guideScale, low }: Guided): boolean {
  return guideScale === 1 && (low === undefined || low.guideScale === 1);
}
