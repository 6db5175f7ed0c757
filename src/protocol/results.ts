import { z } from "zod";
import { linkPatterns } from "./job.js";

export const phaseNames = ["attention", "gemm", "elementwise", "communication"] as const;
export type Phase = (typeof phaseNames)[number];

/**
 * Milliseconds of one forward on the compute stream by phase, as traces, tables and JSON all mean them. Communication is what
 * compute did not hide: sums, gathers and halos, waits of the stream for others, and attention's waits for the ring's blocks.
 */
export const phasesSchema = z.strictObject({
  attention: z.number(),
  gemm: z.number(),
  elementwise: z.number(),
  communication: z.number(),
});
export type Phases = z.infer<typeof phasesSchema>;

/** What a launch exchanges with other ranks. Ranks are the world's. */
export const exchangeSchema = z.strictObject({
  /** `all-reduce`, `gather`, `ring`, `halo`, … */
  what: z.string(),
  /** The group's name, and its ranks in its order. */
  group: z.string(),
  ranks: z.array(z.int()),
  /** Ranks that messages of this launch go to, and those that it waits for messages of; none of a collective. */
  to: z.array(z.int()),
  from: z.array(z.int()),
});
export type Exchange = z.infer<typeof exchangeSchema>;

/** One interval on one of a rank's streams, for a trace. Times in microseconds since the forward began on this rank. */
export const traceEventSchema = z.strictObject({
  name: z.string(),
  phase: z.enum(phaseNames),
  stream: z.string(),
  startMicroseconds: z.number(),
  durationMicroseconds: z.number(),
  /** What it had to do: floating-point operations of products and attention, bytes if every tensor crosses the memory once. */
  flops: z.number(),
  bytes: z.number(),
  /** Of a product's or an attention's inputs. */
  dtype: z.string().optional(),
  /** Tells launches of one kernel apart. */
  shape: z.string(),
  /** Module path of the layer that it is of, where that is known. */
  layer: z.string().optional(),
  /** Attention that waits inside for the ring's blocks: `ringWaitsMs` says for how long, all launches together. */
  waits: z.boolean().optional(),
  exchange: exchangeSchema.optional(),
  /** When this rank's thread queued it, and for how long that took, on the clock of the other times. */
  queued: z.strictObject({ startMicroseconds: z.number(), durationMicroseconds: z.number() }),
  /** Bytes of the forward's own memory in use as it was queued. */
  arenaBytes: z.number(),
});
export type TraceEvent = z.infer<typeof traceEventSchema>;

/**
 * Something that lasts, and has other spans or kernels within it. Times as those of trace events. Blocks and forwards are of the
 * compute stream, from their first kernel to their last; stages and steps of the host's clock.
 */
export const traceSpanSchema = z.strictObject({
  name: z.string(),
  kind: z.enum(["stage", "step", "forward", "block"]),
  startMicroseconds: z.number(),
  durationMicroseconds: z.number(),
});
export type TraceSpan = z.infer<typeof traceSpanSchema>;

/** How a rank's clock stands to the launcher's. */
export const rankClockSchema = z.strictObject({
  /** Ranks with the same have one clock: of one start of one machine. */
  id: z.string(),
  /** The launcher's clock less this rank's, in microseconds. */
  offsetMicroseconds: z.number(),
  /** At most so far from right: half of the quickest question and answer. */
  residualMicroseconds: z.number(),
});
export type RankClock = z.infer<typeof rankClockSchema>;

/** What a rank's part of a trace is of. */
const recordingSchema = {
  trace: z.array(traceEventSchema),
  spans: z.array(traceSpanSchema),
  host: z.string(),
  /** What times of events and spans count from, in microseconds of the host's CLOCK_MONOTONIC: one clock for all ranks of a host. */
  recordedAtMicroseconds: z.number(),
  /** Only where a trace was asked for. */
  clock: rankClockSchema.optional(),
};
export const traceRankSchema = z.strictObject({ rank: z.int(), device: z.string(), ...recordingSchema });
export type TraceRank = z.infer<typeof traceRankSchema>;

/** Device memory that a rank held once something had been done. */
export const memoryPointSchema = z.strictObject({ after: z.string(), bytes: z.number() });
export type MemoryPoint = z.infer<typeof memoryPointSchema>;

/** All launches of one kernel with one shape in a forward; attention's without its waits, which are a total of their own with no launches. */
export const kernelTotalSchema = z.strictObject({
  name: z.string(),
  shape: z.string(),
  phase: z.enum(phaseNames),
  launches: z.int(),
  milliseconds: z.number(),
  flops: z.number(),
  bytes: z.number(),
  /** Milliseconds at the device's peaks, the slower of arithmetic and memory (the roofline); null where a peak is not known. */
  roofMs: z.number().nullable(),
});
export type KernelTotal = z.infer<typeof kernelTotalSchema>;

/** What each worker reports for a profile task, and for a wan-profile task. */
export const profileRankSchema = z.strictObject({
  rank: z.int(),
  device: z.string(),
  /** One latency per timed iteration, in milliseconds, measured on the device. */
  latenciesMs: z.array(z.number()),
  /** The forward that phases, ringWaitsMs, kernels and trace are of: one more, launched kernel by kernel with a clock around each. */
  recordedMs: z.number(),
  phases: phasesSchema,
  /** By ring step (the rank's own block first): milliseconds of the forward that attention waited for the block, over all layers. */
  ringWaitsMs: z.array(z.number()),
  peakMemoryBytes: z.number(),
  /** Floating-point operations of the whole model's forward (all ranks together). */
  modelFlops: z.number(),
  /** Of the compute stream, the longest first. */
  kernels: z.array(kernelTotalSchema),
  /** Dense peak of this device for the narrowest of the plan's dtypes in TFLOP/s, or null if unknown. */
  peakTflops: z.number().nullable(),
  peakGBs: z.number().nullable(),
  ...recordingSchema,
  /** In the order of time. */
  memory: z.array(memoryPointSchema),
});
export type ProfileRank = z.infer<typeof profileRankSchema>;

/** What each worker reports for a forward task; the output itself is in the task's file. */
export const forwardRankSchema = z.strictObject({
  rank: z.int(),
  device: z.string(),
  milliseconds: z.number(),
  peakMemoryBytes: z.number(),
});
export type ForwardRank = z.infer<typeof forwardRankSchema>;

/** What each worker reports for a wan-vae task. */
export const wanVaeRankSchema = z.strictObject({
  rank: z.int(),
  device: z.string(),
  /** Wall time of each iteration, frames on the host of rank 0 included. */
  milliseconds: z.array(z.number()),
  peakMemoryBytes: z.number(),
});
export type WanVaeRank = z.infer<typeof wanVaeRankSchema>;

/**
 * What rank 0 says while it works, under the name `progress`. A video is loaded for, prepared, encoded, sampled and decoded; a
 * profile has its first forward, those that warm up, those that are timed and the one that is recorded; links have cases; a conversion
 * has bytes of its source.
 */
export const progressSchema = z.strictObject({
  stage: z.enum([
    "load",
    "prepare",
    "encode",
    "sample",
    "decode",
    "first",
    "warm up",
    "forward",
    "record",
    "case",
    "convert",
  ]),
  /** Of the stage: bytes of weights on this rank, steps of sampling, forwards, cases; else only its end. */
  done: z.int(),
  total: z.int(),
  /** Since the stage began; of forwards, what the last one took. */
  milliseconds: z.number(),
  /** What is loaded. */
  what: z.string().optional(),
});
export type Progress = z.infer<typeof progressSchema>;

/** The device memory that a task needs on a rank. */
export const memorySchema = z.strictObject({
  /** Of device memory, with everything in it at once. */
  neededBytes: z.number(),
  availableBytes: z.number(),
  /** Memory is short on some rank: the text encoder was loaded, used and freed before the other models were loaded. */
  encoderFirst: z.boolean(),
  /** Of the host's memory, for the second of two transformers; 0 where that waits on the device, or there is none. */
  hostBytes: z.number(),
});
export type MemoryNeed = z.infer<typeof memorySchema>;

/** What each worker reports for a rehearse task. */
export const rehearseRankSchema = z.strictObject({
  rank: z.int().min(0),
  /** The GPU's or CPU's name. */
  device: z.string(),
  memory: memorySchema,
});
export type RehearseRank = z.infer<typeof rehearseRankSchema>;

/** What each worker reports for a wan-generate task; the frames went before, under the name `frame`. */
export const wanGenerateRankSchema = z.strictObject({
  rank: z.int(),
  device: z.string(),
  /** Wall time. Preparing is a rehearsal of all models, loading them, and a first run of the text encoder, which loads its kernels. Encoding is of both texts, with every block's keys and values of them; decoding ends with the last frame on the host of rank 0. */
  stages: z.strictObject({
    prepareMs: z.number(),
    encodeMs: z.number(),
    sampleMs: z.number(),
    decodeMs: z.number(),
  }),
  /** Of preparing: the loading of weights alone, and the bytes that they take on the device. Nothing where they were there already. */
  load: z.strictObject({ milliseconds: z.number(), bytes: z.number() }),
  memory: memorySchema,
  /** Wall time of each sampling step. */
  stepsMs: z.array(z.number()),
  /** Of sampling: wall time of putting the second transformer in the place of the first; 0 where there is one. */
  switchMs: z.number(),
  /** Device time of each forward, in the order that they ran: one a step, or two where this rank does both in turn. */
  forwardsMs: z.array(z.number()),
  /** How many forwards each of those times is for: 2 where both texts' run at the same time. */
  forwardsAtOnce: z.int(),
  /** Floating-point operations of one forward, all ranks of its group together. */
  forwardFlops: z.number(),
  /** Of device memory that this worker holds when the video is done: weights, and the programs of the sizes that it knows. */
  heldMemoryBytes: z.number(),
  peakMemoryBytes: z.number(),
});
export type WanGenerateRank = z.infer<typeof wanGenerateRankSchema>;

/** The same, and where a trace was asked for: stages and steps, and one step's forwards kernel by kernel. */
export const wanGenerateResultSchema = wanGenerateRankSchema.extend({
  recording: z
    .strictObject({
      ...recordingSchema,
      /** From 1. */
      step: z.int(),
      /** Of the step's forwards, as in a profile. */
      recordedMs: z.number(),
      phases: phasesSchema,
      ringWaitsMs: z.array(z.number()),
      kernels: z.array(kernelTotalSchema),
      peakTflops: z.number().nullable(),
      peakGBs: z.number().nullable(),
      memory: z.array(memoryPointSchema),
    })
    .optional(),
});
export type WanGenerateResult = z.infer<typeof wanGenerateResultSchema>;

/** What the worker of a wan-convert task reports; the file itself is at the task's `out`. */
export const wanConvertRankSchema = z.strictObject({
  rank: z.int(),
  device: z.string(),
  /** Of the new file. */
  bytes: z.number(),
  milliseconds: z.number(),
});
export type WanConvertRank = z.infer<typeof wanConvertRankSchema>;

/** What each worker reports for a links task. */
export const linksRankSchema = z.strictObject({
  rank: z.int(),
  device: z.string(),
  links: z.array(
    z.strictObject({
      pattern: z.enum(linkPatterns),
      bytes: z.int(),
      /** Device time of one exchange, for each repetition: a mean over the exchanges of one graph. */
      microseconds: z.array(z.number()),
    }),
  ),
});
export type LinksRank = z.infer<typeof linksRankSchema>;

/** What a worker reports for a calibrate task. Rates are 10^12 operations a second. */
export const calibrateRankSchema = z.strictObject({
  rank: z.int(),
  device: z.string(),
  memoryBytes: z.number(),
  multiprocessors: z.int(),
  products: z.array(z.strictObject({ dtype: z.enum(["fp32", "bf16", "e4m3"]), tflops: z.number() })),
  attention: z.array(
    z.strictObject({ headDim: z.int(), dtype: z.enum(["fp32", "bf16", "fp16", "e4m3"]), tflops: z.number() }),
  ),
  /** 10^9 bytes a second, read and written. */
  passGBs: z.number(),
  launchMicroseconds: z.number(),
  /** Of an activation, for each output of a product. */
  activationPicoseconds: z.number(),
});
export type CalibrateRank = z.infer<typeof calibrateRankSchema>;
