import { z } from "zod";
import { ditModelSchema, latentSizeSchema, modelSchema, wanModelSchema } from "../models/schema.js";
import { planSchema } from "../plan/schema.js";
import { hostRunsSchema } from "./host-runs.js";
import { seedSchema } from "./seed.js";

/** Where a model's weights come from. */
export const weightsSchema = z.discriminatedUnion("from", [
  /** Seeded counter-based random numbers: the same full tensors on every layout and device. wide: for checks (worker/weights/wide.ts). */
  z.strictObject({ from: z.literal("random"), seed: seedSchema, wide: z.boolean().optional() }),
  /** A folder with config.json and model.safetensors. */
  z.strictObject({ from: z.literal("directory"), directory: z.string().min(1) }),
]);
export type Weights = z.infer<typeof weightsSchema>;

/** Of every task that times forwards. */
const timing = {
  /** Forwards before the clock starts, and under it. */
  warmup: z.int().min(0),
  iterations: z.int().min(1),
  /** Collect the events of one more forward for a Chrome trace. */
  trace: z.boolean(),
};

export const profileTaskSchema = z.strictObject({
  kind: z.literal("profile"),
  model: ditModelSchema,
  plan: planSchema,
  weights: weightsSchema,
  seed: seedSchema,
  ...timing,
});
export type ProfileTask = z.infer<typeof profileTaskSchema>;

/** Of tasks whose layers may be compared. */
const layered = {
  /** Rank 0 also writes some tokens of the residual stream after each layer, `layer.N.TEXT.NAME`, float32 [tokens, width]. */
  layers: z.boolean().optional(),
};

export const forwardTaskSchema = z.strictObject({
  /** Runs one forward and leaves the whole output on rank 0. */
  kind: z.literal("forward"),
  model: ditModelSchema,
  plan: planSchema,
  weights: weightsSchema,
  seed: seedSchema,
  /** A safetensors file with inputs img, t, y; else random ones from the seed. */
  inputs: z.string().min(1).optional(),
  /** Rank 0 writes the output here, a safetensors file with the float32 tensor `output`. */
  output: z.string().min(1),
  ...layered,
});
export type ForwardTask = z.infer<typeof forwardTaskSchema>;

/** Where Wan's weights come from; paths are files of any kind and dialect, or the index of several, and two may be the same. */
export const wanWeightsSchema = z.discriminatedUnion("from", [
  z.strictObject({ from: z.literal("random"), seed: seedSchema, wide: z.boolean().optional() }),
  z.strictObject({
    from: z.literal("checkpoint"),
    transformer: z.string().min(1),
    /** The one for low noise, where there are two. */
    transformer2: z.string().min(1).optional(),
    textEncoder: z.string().min(1),
    vae: z.string().min(1),
  }),
]);
export type WanWeights = z.infer<typeof wanWeightsSchema>;

/** LoRAs that are laid over the transformer's weights, in this order. */
export const lorasSchema = z.array(z.strictObject({ file: z.string().min(1), strength: z.number() }));

export const wanForwardTaskSchema = z.strictObject({
  /** Encodes one prompt and runs the transformer once, for checks against recorded tensors. */
  kind: z.literal("wan-forward"),
  model: wanModelSchema,
  plan: planSchema,
  weights: wanWeightsSchema,
  /** A safetensors file with the latent [channels, frames, height, width] and the prompt's token ids, under these keys. */
  inputs: z.strictObject({ file: z.string().min(1), latent: z.string().min(1), ids: z.string().min(1) }),
  /** Time step, 0 to 1000. */
  t: z.number(),
  loras: lorasSchema.optional(),
  /** Rank 0 writes `context` [tokens, text width] and `output` [channels, frames, height, width] here, float32. */
  output: z.string().min(1),
});
export type WanForwardTask = z.infer<typeof wanForwardTaskSchema>;

/** ditrun: the device's own. torch-cpu: as ComfyUI, and diffusers with a CPU generator. torch-cuda: as the published code on an H100 or H200. */
export const noiseGenerators = ["ditrun", "torch-cpu", "torch-cuda"] as const;

export const samplingSchema = z.strictObject({
  solver: z.enum(["unipc", "dpm++", "euler", "renoise"]),
  steps: z.int().min(1),
  /** Of no effect where sigmas are given. */
  shift: z.number().positive(),
  /** 1 leaves the negative prompt out. */
  guideScale: z.number(),
  /** Steps of the second of two transformers: those below 1000 · boundary. */
  low: z.strictObject({ boundary: z.number().gt(0).lt(1), guideScale: z.number() }).optional(),
  /** The noise level before each step, from high to low; after the last it is 0. */
  sigmas: z.array(z.number()).min(1).optional(),
  /** What the initial noise is multiplied with; 1 unless given. */
  initialScale: z.number().positive().optional(),
});
export type Sampling = z.infer<typeof samplingSchema>;

export const wanGenerateTaskSchema = z.strictObject({
  /** Two texts to a video: encodes, samples with guidance, decodes; rank 0 hands the frames over as they are done. */
  kind: z.literal("wan-generate"),
  model: wanModelSchema,
  plan: planSchema,
  weights: wanWeightsSchema,
  /** Token ids of the prompt and of the negative prompt. */
  ids: z.strictObject({ prompt: z.array(z.int()).min(1), negative: z.array(z.int()).min(1) }),
  size: latentSizeSchema,
  sampling: samplingSchema,
  loras: lorasSchema.optional(),
  /** Laid over the second of two transformers. */
  loras2: lorasSchema.optional(),
  /** So many of the first and of the last steps compute nothing in e4m3: the transformer holds its weights twice. */
  bf16Steps: z.int().min(1).optional(),
  /** Bytes of device memory that each worker may use; else what is free. */
  memoryBytes: z.number().positive().optional(),
  /** Of the initial noise, unless a safetensors file has it, [channels, frames, height, width]. */
  seed: seedSchema,
  /** Whose random numbers the seed stands for; by default ditrun's own. */
  generator: z.enum(noiseGenerators).optional(),
  noise: z.strictObject({ file: z.string().min(1), tensor: z.string().min(1) }).optional(),
  /** Rank 0 writes `context`, `context_null`, `latent.N` after step N and `video` [3, F, H, W] here, float32. */
  dump: z.string().min(1).optional(),
  /** False where a file that has the dump's name by then must stay: the next free number is taken. */
  replace: z.boolean().optional(),
  /** Collect the events of a trace: all stages and steps, and the second step's forwards kernel by kernel. */
  trace: z.boolean().optional(),
});
export type WanGenerateTask = z.infer<typeof wanGenerateTaskSchema>;

export const wanLoadTaskSchema = wanGenerateTaskSchema.omit({ kind: true }).extend({
  /** Loads the weights, and makes ready what such a video needs. */
  kind: z.literal("wan-load"),
});
export type WanLoadTask = z.infer<typeof wanLoadTaskSchema>;

export const wanProfileTaskSchema = z.strictObject({
  /** Times the transformer's forward with random weights and inputs, for videos of one size. */
  kind: z.literal("wan-profile"),
  model: wanModelSchema,
  plan: planSchema,
  size: latentSizeSchema,
  /** Of weights and inputs. */
  seed: seedSchema,
  ...timing,
  /** Rank 0 writes what the forward was given and what it gave here, float32: `latent`, `text`, `t` and `output`. */
  dump: z.string().min(1).optional(),
});
export type WanProfileTask = z.infer<typeof wanProfileTaskSchema>;

export const wanAccuracyTaskSchema = z.strictObject({
  /** One step of guidance, with weights, latent and texts of random numbers: the transformer once for each of two texts. */
  kind: z.literal("wan-accuracy"),
  model: wanModelSchema,
  plan: planSchema,
  size: latentSizeSchema,
  /** Of weights and inputs. */
  seed: seedSchema,
  /** Rank 0 writes the velocity here, a safetensors file with the float32 tensor `output` [channels, frames, height, width]. */
  output: z.string().min(1),
  ...layered,
});
export type WanAccuracyTask = z.infer<typeof wanAccuracyTaskSchema>;

export const wanVaeTaskSchema = z.strictObject({
  /** Decodes or encodes one tensor with Wan's VAE. */
  kind: z.literal("wan-vae"),
  model: z.strictObject({
    name: z.string().min(1),
    weights: z.discriminatedUnion("from", [
      /** Wan2.1_VAE.pth, or any file that holds a VAE. */
      z.strictObject({ from: z.literal("file"), file: z.string().min(1) }),
      /** Of the published model's shape. */
      z.strictObject({ from: z.literal("random"), seed: seedSchema }),
    ]),
  }),
  plan: planSchema,
  direction: z.enum(["decode", "encode"]),
  input: z.discriminatedUnion("from", [
    /** A float32 tensor of a safetensors file: a latent [16, F, h, w], or a video [3, 4n + 1, H, W] in [-1, 1]. */
    z.strictObject({ from: z.literal("file"), file: z.string().min(1), tensor: z.string().min(1) }),
    /** Numbers that only time needs, for latents [16, frames, height, width]. */
    z.strictObject({ from: z.literal("size"), frames: z.int().min(1), height: z.int().min(1), width: z.int().min(1) }),
  ]),
  clamp: z.boolean(),
  /** What a decode's frames are fetched as: float32 unless given, or the bytes that videos are made of, which leave no `output`. */
  pixels: z.enum(["fp32", "u8"]).optional(),
  /** How often to do it; each time is reported. */
  iterations: z.int().min(1),
  /** Rank 0 writes the last result here, a safetensors file with the float32 tensor `output`: a video, or a latent. */
  output: z.string().min(1).optional(),
});
export type WanVaeTask = z.infer<typeof wanVaeTaskSchema>;

/** What a converted file's linear layers are in. */
export const convertTargets = ["bf16", "e4m3"] as const;

export const wanConvertTaskSchema = z.strictObject({
  /** Writes one part of a model as it is loaded under the plan. */
  kind: z.literal("wan-convert"),
  /** With a transformer's sizes its transformer, else its text encoder. */
  model: z.strictObject({ name: z.string().min(1), transformer: wanModelSchema.optional() }),
  plan: planSchema,
  /** What the plan came from, for the new file's metadata. */
  to: z.enum(convertTargets),
  /** Of any kind and dialect, or the index of several. */
  file: z.string().min(1),
  /** Of a transformer. */
  loras: lorasSchema.optional(),
  out: z.string().min(1),
  /** Whether what has that name goes. */
  overwrite: z.boolean(),
  /** The program and its version, for the new file's metadata. */
  by: z.string().min(1),
});
export type WanConvertTask = z.infer<typeof wanConvertTaskSchema>;

export const linkTransports = ["peer", "nccl"] as const;
/** The first three are what models use; the last is NCCL's own call, only over NCCL, to compare with. */
export const linkPatterns = ["all-reduce", "ring shift", "halo", "NCCL all-reduce"] as const;

export const linksTaskSchema = z.strictObject({
  /** Times messages between the ranks; plan.ring.transport says what carries them. */
  kind: z.literal("links"),
  plan: planSchema,
  /** Bytes of each message, of bf16 values. */
  sizes: z.array(z.int().min(64).multipleOf(64)).min(1),
  /** Timed repetitions of each pattern and size. */
  repetitions: z.int().min(1),
});
export type LinksTask = z.infer<typeof linksTaskSchema>;

export const calibrateTaskSchema = z.strictObject({
  /** Times products, attention, copies and launches of one device, for the planner. */
  kind: z.literal("calibrate"),
  plan: planSchema,
});
export type CalibrateTask = z.infer<typeof calibrateTaskSchema>;

export const rehearseTaskSchema = z.strictObject({
  /** Finds out what memory a task needs, and whether its files can be read, with no weights loaded and nothing computed. */
  kind: z.literal("rehearse"),
  model: modelSchema,
  plan: planSchema,
  of: z.discriminatedUnion("kind", [profileTaskSchema, forwardTaskSchema, wanGenerateTaskSchema, wanProfileTaskSchema]),
});
export type RehearseTask = z.infer<typeof rehearseTaskSchema>;

/** What workers are asked to do: the launcher's commands make these, src/worker/tasks runs them. */
export const taskSchema = z.discriminatedUnion("kind", [
  profileTaskSchema,
  forwardTaskSchema,
  wanForwardTaskSchema,
  wanGenerateTaskSchema,
  wanLoadTaskSchema,
  wanProfileTaskSchema,
  wanAccuracyTaskSchema,
  wanVaeTaskSchema,
  wanConvertTaskSchema,
  linksTaskSchema,
  calibrateTaskSchema,
  rehearseTaskSchema,
]);
export type Task = z.infer<typeof taskSchema>;

/** What a worker is told when it joins: the same for all its requests. */
export const settingsSchema = z.strictObject({
  /** Names the launch, in logs. */
  id: z.string().min(1),
  device: z.enum(["cpu", "cuda"]),
  /** The kernel module's file. */
  kernels: z.string().min(1),
  /** Seconds that any wait for other ranks may take. */
  timeoutSeconds: z.number().positive(),
  /** The GPU of local rank 0; those of the others follow. 0 unless given. */
  firstDevice: z.int().min(0).optional(),
  /** Where the ranks are; all on one host unless given. */
  hosts: hostRunsSchema.optional(),
  /** Whether more requests may come: what has to make room for other work is then kept in host memory. */
  stays: z.boolean().optional(),
});
export type Settings = z.infer<typeof settingsSchema>;

/** A task, and what it runs on. */
export const jobSchema = settingsSchema.extend({ task: taskSchema });
export type Job = z.infer<typeof jobSchema>;
