import { z } from "zod";

/** fp16: attention in it, the rest in bf16. fp8: linear layers and attention in e4m3. */
export type Precision = "bf16" | "fp16" | "fp8";

export const latency = z.object({ median: z.number(), p10: z.number(), p90: z.number() });
/** What this script reads of the documents of `ditrun profile`, `accuracy`, `wan generate` and `links`. */
export const profileDocument = z.object({
  latencyMs: latency,
  phases: z.object({ communication: z.number() }),
  ranks: z.array(z.object({ ringWaitsMs: z.array(z.number()) })),
});
export const accuracyDocument = z.object({
  results: z.array(z.object({ meanAbs: z.number().nullable(), relL2: z.number().nullable(), pass: z.boolean() })),
});
export const generateDocument = z.object({
  stages: z.object({ encodeMs: z.number(), sampleMs: z.number(), decodeMs: z.number(), videoMs: z.number() }),
  forwardMs: latency,
  forwardTflops: z.number(),
  peakMemoryBytes: z.number(),
  ranks: z.array(z.object({ stepsMs: z.array(z.number()) })),
});
export const linksDocument = z.object({
  results: z.array(
    z.object({
      transport: z.string(),
      pattern: z.string(),
      bytes: z.number(),
      microseconds: z.number(),
      gigabytesPerSecond: z.number(),
    }),
  ),
});
export type LinkResult = z.infer<typeof linksDocument>["results"][number];

/** One layout and precision of the DiT benchmark. */
export interface DitResult {
  plan: string;
  precision: Precision;
  /** Null where the piece failed. */
  latencyMs: z.infer<typeof latency> | null;
  /** Over one GPU with the same precision. */
  speedup: number | null;
  /** Communication that compute did not hide, of one forward: mean over the ranks. */
  communicationMs: number | null;
  /** The part of it that attention waited for ring blocks: the rank that waited longest. */
  ringWaitMs: number | null;
  /** Against one GPU with the same precision; null for one GPU. */
  meanAbs: number | null;
  relL2: number | null;
  target: string;
}

/** One video, or the first steps of one. */
export interface WanResult {
  model: string;
  size: string;
  frames: number;
  plan: string;
  precision: Precision;
  steps: number;
  /** Null where the piece failed, as everything below it. Median without the first step, the slowest rank of each. */
  secondsPerStep: number | null;
  forwardMs: number | null;
  forwardTflops: number | null;
  decodeSeconds: number | null;
  /** Measured, of this many steps: from the texts to the last frame on the host, without loading. */
  totalSeconds: number | null;
  /** Computed, not measured: the same with `fullSteps` steps of secondsPerStep. */
  computedTotalSeconds: number | null;
  /** From the last frame to the finished file, beside all that: ffmpeg's or the other encoder's. */
  fileSeconds: number | null;
  peakMemoryBytes: number | null;
  target: string;
}

/** All that was measured, as --out writes it. */
export interface Headline {
  date: string;
  gpus: number;
  device: "cuda" | "cpu";
  budgetSeconds: number;
  seconds: number;
  /** Null where git does not answer. */
  commit: string | null;
  /** A line per GPU: name, driver, SM and memory clocks now, largest SM clock; null where nvidia-smi does not answer. */
  nvidiaSmi: string | null;
  /** Steps of a whole video. */
  fullSteps: number;
  dit: DitResult[];
  wan: WanResult[];
  links: LinkResult[];
  failures: { piece: string; reason: string }[];
}
