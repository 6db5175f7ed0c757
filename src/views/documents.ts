import { z } from "zod";
import { exitCodes } from "../failure.js";
import { ditModelSchema, modelSchema, wanModelSchema } from "../models/schema.js";
import { parts } from "../models/wan/tensors/spellings.js";
import { deviceSchema, linksSchema } from "../plan/planner/device.js";
import { planSchema } from "../plan/schema.js";
import { convertTargets, linkPatterns, linkTransports, lorasSchema, samplingSchema } from "../protocol/job.js";
import { kernelTotalSchema, phasesSchema, wanGenerateRankSchema } from "../protocol/results.js";
import { seedSchema } from "../protocol/seed.js";

// What --json and --events write, as docs/json.md and docs/schema/ publish it. A document with a key that is not here fails a test.

const text = (what: string) => z.string().describe(what);
const number = (what: string) => z.number().describe(what);
const nullable = (what: string) => z.number().nullable().describe(what);
const plan = planSchema.describe("The parallelism plan, with its defaults written out");
const latency = z.strictObject({ median: z.number(), p10: z.number(), p90: z.number() });
const share = "of the dense peak of the devices in use, 0 to 1; null where the peak is not known";

/** Of every document. */
export const envelopeSchema = z.strictObject({
  schemaVersion: z.literal(1).describe("Grows when a key goes or changes its meaning; new keys do not change it"),
  ditrun: z.strictObject({
    version: z.string(),
    commit: z.string().nullable().describe("Of a clone's HEAD; null elsewhere"),
  }),
  commandLine: z.array(z.string()).describe("The words of the line, the prompt among them"),
  startedAt: text("ISO 8601, UTC"),
  host: z.string(),
});

/** Of every result. */
const result = {
  ...envelopeSchema.shape,
  command: text("profile, accuracy, links, convert, wan generate, wan profile or wan accuracy"),
  deviceKind: z.enum(["cpu", "cuda"]),
  deviceName: z.string().nullable().describe("As its driver calls it; null where no worker told it"),
  deviceCount: z.int().describe("GPUs of the host; 1 on a CPU"),
  environment: z
    .strictObject({
      node: text("Version of Node.js"),
      kernels: text("The kernel module's file"),
      kernelsHash: z.string().nullable().describe("The first 12 digits of its SHA-256"),
      driver: z.string().nullable().describe("Version of NVIDIA's driver; null where there is none"),
    })
    .describe("What results depend on, beside the command line"),
};
/** Of every result about a model. */
const ofModel = { ...result, seed: seedSchema.describe("Decimal text beyond 2^53") };
const verdict = text("What the numbers come to, in a sentence");

const measured = {
  device: z.string(),
  latencyMs: latency,
  tflops: number("TFLOP/s of the model's operations at the median latency"),
  peakShare: nullable(share),
  recordedMs: number("Milliseconds of the forward that phases are of, which is not one of those timed"),
  phases: phasesSchema.describe("As phasesMs"),
  phasesMs: phasesSchema.describe("Milliseconds of the recorded forward by kind of work"),
};

const profileRank = z.strictObject({
  ...measured,
  rank: z.int(),
  peakMemoryBytes: z.number(),
  ringWaitsMs: z.array(z.number()).describe("By ring step, what attention waited for; part of communication"),
  kernels: z.array(kernelTotalSchema),
});

const profile = z.strictObject({
  ...ofModel,
  ...measured,
  model: modelSchema,
  plan,
  throughput: number("As throughputPerSecond"),
  throughputPerSecond: number("Images a second of the DiT, forwards a second of Wan"),
  processors: z.int().describe("GPUs, or cores of the CPU, that the workers run on"),
  worldSize: z.int(),
  warmup: z.int(),
  iterations: z.int(),
  ranks: z.array(profileRank),
  predicted: z
    .strictObject({
      milliseconds: number("Of a forward: the sum of the four that follow"),
      ...{ attention: z.number(), products: z.number(), elementwise: z.number() },
      communication: number("Milliseconds that compute does not hide"),
      hidden: number("Milliseconds of communication that attention hides"),
      error: number("Predicted over the measured median, less 1"),
      rates: text("The device whose rates it was made with"),
      calibrated: z.boolean().describe("Whether they were measured on this machine, by ditrun plan --calibrate"),
    })
    .describe("What the planner expects of the plan, in milliseconds"),
  verdict,
  baseline: z
    .strictObject({
      latencyMs: latency,
      tflops: z.number(),
      speedup: number("Median of one worker over that of the plan"),
      ideal: z.int().describe("Workers, as far as there are processors for them"),
      efficiency: number("speedup / ideal"),
      verdict,
    })
    .optional()
    .describe("One worker, with --baseline"),
});

const measures = z.strictObject({ relL2: z.number(), region: z.number(), token: z.number() });
const comparison = z.strictObject({
  plan: z.string(),
  dtypes: z.string(),
  comparison: z.enum(["layout", "arithmetic"]),
  measures: measures.nullable().describe("Relative; null where the output is not finite"),
  limits: measures,
  meanAbs: nullable("Of the absolute difference"),
  maxAbs: nullable("Of the absolute difference"),
  stdAbs: nullable("Of the absolute difference"),
  relL2: nullable("As measures.relL2"),
  nonFinite: z.int(),
  pass: z.boolean(),
  layers: z
    .array(z.strictObject({ layer: z.string(), slot: z.string(), relL2: z.number().nullable() }))
    .optional()
    .describe("With --layers: relative differences of the residual stream, in the order of computation"),
  firstLayer: z.string().nullable().optional().describe("The first layer above limits.relL2; null where there is none"),
});
const accuracy = z.strictObject({
  ...ofModel,
  model: modelSchema,
  device: z.enum(["cpu", "cuda"]),
  plans: z.array(plan),
  weights: z.string(),
  reference: z.string(),
  results: z.array(comparison),
  arithmetic: z.array(comparison).describe("One device in the plans' dtypes with one in float32"),
  pass: z.boolean(),
  verdict,
});

const links = z.strictObject({
  ...result,
  device: z.string(),
  model: z.null(),
  plans: z.array(plan),
  worldSize: z.int(),
  repetitions: z.int(),
  results: z.array(
    z.strictObject({
      transport: z.enum(linkTransports),
      pattern: z.enum(linkPatterns),
      bytes: z.int(),
      microseconds: z.number(),
      gigabytesPerSecond: z.number(),
    }),
  ),
  verdict,
});

const stages = { ...wanGenerateRankSchema.shape.stages.shape, videoMs: number("From the last frame to the file") };
const video = {
  device: z.string(),
  stages: z.strictObject(stages).describe("Wall time; the slowest rank's"),
  load: wanGenerateRankSchema.shape.load.describe("Of preparing: the weights alone, all ranks' bytes"),
  totalMs: number("All stages but preparing"),
  forwardMs: latency,
  forwardsAtOnce: z.int(),
  secondsPerStep: number("Median"),
  switchMs: number(
    "Of sampling: putting the second of two transformers in the place of the first; 0 where there is one",
  ),
  forwardTflops: z.number(),
  peakMemoryBytes: number("Of the worker that needs most"),
  weights: text("Where they come from"),
  model: wanModelSchema,
  plan,
  sampling: samplingSchema,
  loras: lorasSchema.describe("LoRAs laid over the weights, with their strengths"),
  loras2: lorasSchema.describe("The same over the second of two transformers"),
  noise: text("Whose random numbers the seed stands for, or the file of the noise"),
  video: z.strictObject({
    out: z.string(),
    encoder: z.string(),
    width: z.int(),
    height: z.int(),
    frames: z.int(),
    fps: z.number(),
  }),
  worldSize: z.int(),
  ranks: z.array(wanGenerateRankSchema),
  prompt: z.string(),
  verdict,
};
const generate = z.strictObject({ ...ofModel, ...video, negativePrompt: z.string() });
const videos = z.strictObject({
  ...ofModel,
  model: wanModelSchema,
  plan,
  negativePrompt: z.string(),
  videos: z.array(z.strictObject({ ...video, seed: seedSchema })),
});

const dryRun = z.strictObject({
  ...ofModel,
  dryRun: z.literal(true),
  model: z.union([ditModelSchema, wanModelSchema]),
  plans: z.array(plan),
  tokens: z.int(),
  parameters: z.int(),
  device: z.enum(["cpu", "cuda"]),
  kernels: text("The kernel module's file"),
  runs: z.array(
    z.strictObject({
      plan,
      workers: z.int(),
      precision: z.enum(["fp32", "bf16", "e4m3"]),
      tokensPerRank: z.array(z.int()).length(2).describe("The least and the most"),
      headsPerRank: z.number(),
      weightBytesPerRank: z.number(),
    }),
  ),
  videoCount: z.int().optional(),
});

const inspectedPart = z.strictObject({
  part: z.enum(parts),
  what: text("What it is, in words"),
  layout: text("Whose names its tensors have"),
  prefix: text("Of all names; empty where there is none"),
  dialect: z.string().nullable().describe("How its weights are scaled; null where they are not"),
  tensors: z.int(),
  parameters: z.int(),
  bytes: z.int(),
  dtypes: z.record(z.string(), z.int()).describe("Tensors by dtype"),
  ignored: z.record(z.string(), z.array(z.string())).describe("Tensors that are not used, by rule"),
  tokenizer: z.boolean().describe("A text encoder with its tokenizer inside"),
  weightBytesPerRank: nullable("Of a text-to-video transformer, with --plan"),
});
const inspect = z.strictObject({
  ...envelopeSchema.shape,
  command: z.literal("inspect"),
  plan: plan.nullable(),
  files: z.array(
    z.strictObject({
      file: z.string(),
      format: z.string().nullable().describe("safetensors, PyTorch or GGUF; null where it cannot be read"),
      problem: z
        .strictObject({ message: z.string(), code: z.string(), exitCode: z.int() })
        .nullable()
        .describe("Why it cannot be used"),
      parts: z.array(inspectedPart),
    }),
  ),
});

const part = z.strictObject({ name: z.string(), a: z.number(), b: z.number(), deltaMs: z.number() });
const compare = z.strictObject({
  ...envelopeSchema.shape,
  command: z.literal("compare"),
  a: text("The file or folder that the other is compared with"),
  b: z.string(),
  kind: z.enum(["results", "videos", "dumps"]).describe("Of both; the keys that follow are of one kind each"),
  failAbove: nullable("Per cent, of --fail-above"),
  pass: z.boolean(),
  verdict,
  // Results.
  subject: z.string().optional(),
  changes: z
    .array(
      z.strictObject({
        ...{ name: z.string(), unit: z.string(), a: z.number(), b: z.number() },
        percent: nullable("(b - a) / a; null where a is 0"),
        less: z.boolean().describe("Whether less of it is better"),
      }),
    )
    .optional()
    .describe("Results: the first is what --fail-above looks at"),
  parts: z.array(part).optional().describe("Results: kinds of work or stages, the largest change first"),
  kernels: z.array(part).optional().describe("Results: kernels of rank 0"),
  settings: z
    .array(z.strictObject({ name: z.string(), a: z.string(), b: z.string() }))
    .optional()
    .describe("Results: what was asked for, or stood around, and differs"),
  slowerPercent: z.number().optional(),
  // Videos and dumps.
  differencePercent: nullable("Relative L2, of a dump its worst tensor's; null where values are not finite").optional(),
  firstApart: z
    .union([z.int(), z.string()])
    .nullable()
    .optional()
    .describe(
      "Videos: the first frame that differs, from 1. Dumps: the first step or layer; null where both are equal",
    ),
  width: z.int().optional(),
  height: z.int().optional(),
  frames: z.int().optional(),
  psnr: nullable("Videos: dB; null where they are equal").optional(),
  ssim: nullable("Videos: of luma; null for frames under 11 pixels").optional(),
  byFrame: z
    .array(z.strictObject({ frame: z.int(), psnr: z.number().nullable(), ssim: z.number().nullable() }))
    .optional(),
  tensors: z
    .array(
      z.strictObject({
        ...{ name: z.string(), where: z.string(), shape: z.array(z.int()), equal: z.boolean() },
        ...{ relL2: z.number().nullable(), maxAbs: z.number().nullable(), psnr: z.number().nullable() },
      }),
    )
    .optional()
    .describe("Dumps: in the order in which they were computed"),
  onlyA: z.array(z.string()).optional(),
  onlyB: z.array(z.string()).optional(),
});

const doctor = z.strictObject({
  ...envelopeSchema.shape,
  command: z.literal("doctor"),
  state: z.enum(["ok", "warning", "problem"]).describe("The worst of the checks"),
  verdict,
  checks: z.array(
    z.strictObject({
      check: text("As --only names it; docs/doctor.md lists all"),
      section: z.enum(["install", "gpus", "kernels", "links", "limits", "network", "cpu", "files"]),
      state: z.enum(["ok", "warning", "problem"]),
      value: text("What was found, half a sentence for people"),
      wayOut: z.string().nullable().describe("What to do; null where nothing is to be done, or value says it"),
      facts: z.looseObject({}).nullable().describe("What it is of, by check; null where the check itself failed"),
    }),
  ),
});

const convert = z.strictObject({
  ...result,
  dryRun: z.literal(true).optional(),
  part: z.enum(["transformer", "text encoder"]),
  file: text("What was converted"),
  loras: lorasSchema.describe("LoRAs merged into the weights, with their strengths"),
  to: z.enum(convertTargets),
  out: z.string(),
  bytes: nullable("Of the new file; null in a dry run"),
  seconds: nullable("Of the work; null in a dry run"),
  verdict,
});

const rankedPlan = z.strictObject({
  plan,
  forwardMs: z.number(),
  stepMs: nullable("Both texts' forwards and the solver; null for the DiT"),
  decodeMs: nullable("Of a whole video; null for the DiT"),
  videoSeconds: nullable("All steps and the decode; null for the DiT"),
  speedup: number("One device's time for the same over the plan's"),
  communicationMs: number("Of a step, of the DiT a forward: what compute does not hide"),
  hiddenMs: number("Of the same: what attention hides"),
  ...{ attentionMs: z.number(), productsMs: z.number(), elementwiseMs: z.number() },
  memoryBytes: number("Of each GPU, with all models at once"),
  leastMemoryBytes: number("The same with one model at a time"),
});
const plans = z.strictObject({
  ...envelopeSchema.shape,
  command: z.string(),
  model: modelSchema,
  tokens: z.int(),
  steps: z.int().nullable().describe("Of a video; null for the DiT"),
  workers: z.int().describe("Of all hosts"),
  hosts: z.int(),
  device: deviceSchema.describe("The rates that plans were ranked by, and where they are from"),
  links: linksSchema,
  calibrated: z.boolean(),
  plans: z.array(rankedPlan).describe("The fastest first"),
  refused: z.array(z.strictObject({ plan: z.string(), why: z.string() })),
  verdict,
});

const failure = z.strictObject({
  message: z.string(),
  code: text("Stable; docs/errors.md lists all"),
  exitCode: z.int(),
  rank: z.int().optional().describe("The rank that failed first"),
  host: z.string().optional(),
  signal: z.string().optional(),
});
const error = z.strictObject({ ...envelopeSchema.shape, error: failure });

const time = { time: text("ISO 8601, UTC") };
const event = <Name extends string, Shape extends z.ZodRawShape>(name: Name, shape: Shape) =>
  z.strictObject({ ...time, event: z.literal(name), ...shape });
const counts = { done: z.int(), total: z.int() };

const events = z.discriminatedUnion("event", [
  event("started", envelopeSchema.shape),
  event("job", {
    kind: text("What the workers do: profile, forward, links, wan-generate, wan-convert, wan-profile or wan-accuracy"),
    subject: z.string(),
    plan: z.string(),
    workers: z.int(),
    deviceKind: z.enum(["cpu", "cuda"]),
  }),
  event("download", { file: z.string(), bytes: z.number(), totalBytes: z.number() }),
  event("loading", { what: z.string(), bytes: number("On rank 0"), totalBytes: z.number(), seconds: z.number() }),
  event("stage", { stage: z.enum(["prepare", "encode", "sample", "decode"]), seconds: z.number() }),
  event("step", { ...counts, seconds: number("Since the first step began"), secondsLeft: z.number() }),
  event("frame", counts),
  event("forward", { kind: z.enum(["first", "warm up", "timed", "recorded"]), ...counts, milliseconds: z.number() }),
  event("case", counts).describe("Of links: a pattern and a size"),
  event("converting", { bytes: number("Of the source"), totalBytes: z.number(), seconds: number("Of this run") }),
  event("run", { ...counts, what: z.string(), seconds: z.number() }).describe("Of accuracy: a plan's forward"),
  event("video", { out: z.string(), frames: z.int() }),
  event("finished", {
    exitCode: z.int(),
    result: z
      .looseObject({})
      .nullable()
      .describe("What --json would have after its envelope; null where there is none"),
  }),
  event("failed", { exitCode: z.int().min(exitCodes.ok + 1), error: failure }),
]);

/** By the name of its file in docs/schema/. */
export const documentSchemas = {
  profile,
  accuracy,
  links,
  generate,
  videos,
  "dry-run": dryRun,
  inspect,
  plan: plans,
  compare,
  doctor,
  convert,
  error,
  events,
} as const;
