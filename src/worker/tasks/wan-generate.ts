import { DitrunError } from "../../failure.js";
import { checkDtypes } from "../../plan/schema.js";
import type { Job, WanGenerateTask } from "../../protocol/job.js";
import type { WanGenerateRank } from "../../protocol/results.js";
import { planSampling } from "../../sampling/scheduler.js";
import { Context } from "../comm/context.js";
import { DeviceSampler } from "../models/wan/device-sampler.js";
import { Guidance } from "../models/wan/guidance.js";
import { NonfiniteCounter } from "../models/wan/nonfinite.js";
import type { TextEncoder } from "../models/wan/text-encoder.js";
import type { TextSlot, WanTransformer } from "../models/wan/transformer.js";
import { videoFrames, type WanVae } from "../models/wan/vae/vae.js";
import { copy } from "../ops/copy.js";
import { Device } from "../runtime/device.js";
import { type Tensor, tensorBytes } from "../runtime/tensor.js";
import type { Store } from "../store.js";
import { bytesOfPixels, FrameSender } from "./frame-sender.js";
import { StageClock } from "./stage-clock.js";
import { WanDump } from "./wan-dump.js";
import { planMemory } from "./wan-memory.js";
import { fillNoise, hostNoise } from "./wan-noise.js";
import { loadTextEncoder, loadTransformer, loadVaeDecoder } from "./wan-session.js";

/** Two texts to a video: encodes both, samples with guidance, decodes; rank 0 hands frames and progress to the launcher. */
export async function runWanGenerate(job: Job, task: WanGenerateTask, store: Store): Promise<WanGenerateRank> {
  checkDtypes(task.plan);
  const clock = new StageClock(store);
  const noise = await hostNoise(task);
  const device = Device.open(job.kernels, Number(process.env.LOCAL_RANK ?? 0));
  const context = await Context.create(device, store, task.plan);
  const memory = await rehearse(context, store, task);
  await context.allocate();

  const nonfinite = new NonfiniteCounter(device);
  const encoder = await device.owning(() => loadTextEncoder(context, task.model, task.weights));
  const { width } = encoder.value.model;
  const load = async () => {
    const others = await loadOthers(context, task, width);
    await others.vae.warmUp();
    return others;
  };
  const models = memory.encoderFirst ? undefined : await load();
  // The first encoding also loads kernels and picks GEMM algorithms.
  for (const ids of [task.ids.prompt, task.ids.negative]) await encoder.value.encode(ids);
  await device.synchronize();
  await store.barrier("loaded");
  let prepareMs = await clock.end("prepare");

  const dump = new WanDump(task.dump, store.rank, task.replace);
  const texts = await encode({ task, context, nonfinite, dump }, encoder.value);
  encoder.free();
  let encodeMs = clock.lap();
  const run = { task, store, context, clock, dump, nonfinite, ...(models ?? (await load())) };
  if (memory.encoderFirst) {
    await store.barrier("others loaded");
    prepareMs = await clock.end("prepare", 1, prepareMs);
  }
  for (const slot of run.guidance.slots) await run.transformer.setText(slot, texts[slot]);
  await device.synchronize();
  encodeMs = await clock.end("encode", 1, encodeMs);

  await fillNoise(device, run.sampler.sample, task, noise);
  const { stepsMs, forwardsMs } = await samplingLoop(run);
  const sampleMs = await clock.end("sample", task.sampling.steps);
  const sender = new FrameSender(store);
  const frames = await decode(run, sender);
  const decodeMs = await clock.end("decode", frames);
  await sender.flush();

  await run.dump.write();
  const peakMemoryBytes = device.kernels.memoryUsed().peak;
  run.guidance.close();
  run.vae.close();
  await context.close();
  device.close();
  return {
    rank: store.rank,
    device: device.info.name,
    stages: { prepareMs, encodeMs, sampleMs, decodeMs },
    memory,
    stepsMs,
    forwardsMs,
    forwardsAtOnce: run.guidance.forwardsAtOnce,
    forwardFlops: run.transformer.flops,
    peakMemoryBytes,
  };
}

interface Run {
  readonly task: WanGenerateTask;
  readonly store: Store;
  readonly context: Context;
  readonly clock: StageClock;
  readonly dump: WanDump;
  readonly transformer: WanTransformer;
  readonly vae: WanVae;
  readonly sampler: DeviceSampler;
  readonly guidance: Guidance;
  readonly nonfinite: NonfiniteCounter;
}

/** Goes through loading and one forward of every model without memory: checks the checkpoint's tensors, measures, and decides. */
async function rehearse(context: Context, store: Store, task: WanGenerateTask): Promise<WanGenerateRank["memory"]> {
  const { device } = context;
  let textWidth = 0;
  const encoder = await device.rehearse(async () => {
    const rehearsed = await loadTextEncoder(context, task.model, task.weights);
    textWidth = rehearsed.model.width;
    context.measure(() => rehearsed.forward());
  });
  const others = await device.rehearse(async () => {
    await loadOthers(context, task, textWidth);
  });
  return planMemory(context, store, { encoder, others }, task.memoryBytes);
}

/** All but the text encoder, and what their forwards keep from one to the next. */
async function loadOthers(context: Context, task: WanGenerateTask, textWidth: number) {
  const { model, weights, size, sampling, bf16Steps } = task;
  const precision = bf16Steps === undefined ? undefined : { quantised: true };
  const transformer = await loadTransformer(context, model, weights, textWidth, size, precision);
  const vae = await loadVaeDecoder(context, weights);
  const schedule = planSampling(sampling.solver, sampling.steps, sampling.shift);
  const sampler = new DeviceSampler(context.device, schedule, [model.channels, size.frames, size.height, size.width]);
  const guidance = new Guidance(context, transformer, sampler.sample, sampling.guideScale);
  context.measure(() => {
    guidance.measure();
    vae.measureDecode(size, task.dump ? "fp32" : "u8");
  });
  return { transformer, vae, sampler, guidance };
}

/** Both texts through the encoder: float32 [tokens, width] each. */
async function encode(
  { task, context, nonfinite, dump }: Pick<Run, "task" | "context" | "nonfinite" | "dump">,
  encoder: TextEncoder,
): Promise<Record<TextSlot, Tensor>> {
  const { device } = context;
  const kept = async (slot: TextSlot, name: string, ids: readonly number[]): Promise<Tensor> => {
    const text = await encoder.encode(ids);
    const bad = await nonfinite.count(text);
    if (bad > 0) {
      throw new DitrunError(
        "ERR_NOT_FINITE",
        `The text encoder's output for the ${textOf(slot)} has ${bad} values that are not finite: check the checkpoint's text encoder, or try --dtype fp32.`,
      );
    }
    await dump.add(name, text.shape, () => device.download(text));
    const out = device.allocatePersistent("fp32", text.shape);
    copy(device, out, text, tensorBytes("fp32", text.shape));
    return out;
  };
  const cond = await kept("cond", "context", task.ids.prompt);
  const uncond = await kept("uncond", "context_null", task.ids.negative);
  await device.synchronize();
  return { cond, uncond };
}

async function samplingLoop(run: Run): Promise<{ stepsMs: number[]; forwardsMs: number[] }> {
  const { context, clock, task, sampler, guidance, transformer, nonfinite, dump } = run;
  const { device } = context;
  const { steps } = task.sampling;
  const { timesteps } = planSampling(task.sampling.solver, steps, task.sampling.shift);
  const stepsMs: number[] = [];
  const forwardsMs: number[] = [];
  context.world.barrier();
  for (const [index, timestep] of timesteps.entries()) {
    const started = performance.now();
    await transformer.setTime(timestep);
    const times = guidance.forward(isQuantised(index, task));
    // Before the sample is updated, so that the forwards can be run again on what they were given.
    const bad = await nonfinite.count(guidance.velocity);
    if (bad > 0) throw await notFinite(run, index, bad);
    sampler.step(index, guidance.velocity);
    await dump.add(`latent.${index}`, sampler.sample.shape, () => device.download(sampler.sample));
    await device.synchronize();
    forwardsMs.push(...times.map((time) => time()));
    stepsMs.push(performance.now() - started);
    if (index + 1 < steps) await clock.progress("sample", index + 1, steps);
  }
  // Between steps, the next step's prediction shows it.
  const bad = await nonfinite.count(sampler.sample);
  if (bad > 0) {
    throw new DitrunError(
      "ERR_NOT_FINITE",
      `The latent after step ${steps} of ${steps} has ${bad} values that are not finite, though the prediction is finite: use a lower --guide-scale.`,
    );
  }
  return { stepsMs, forwardsMs };
}

/** The first and the last steps decide the most: they may be left in the plan's dtype. */
export function isQuantised(
  step: number,
  { bf16Steps = 0, sampling }: Pick<WanGenerateTask, "bf16Steps" | "sampling">,
) {
  return step >= bf16Steps && step < sampling.steps - bf16Steps;
}

async function notFinite({ nonfinite, guidance, store, task }: Run, index: number, bad: number): Promise<DitrunError> {
  const culprit = await nonfinite.findCulprit(guidance, store);
  const where = culprit
    ? `the first layer to have any is ${culprit.layer} in the forward of the ${textOf(culprit.slot)} on rank ${culprit.rank}`
    : "but all layers are finite when they run again";
  return new DitrunError(
    "ERR_NOT_FINITE",
    `At step ${index + 1} of ${task.sampling.steps} the guided prediction has ${bad} values that are not finite; ${where}: check the weights and the noise, or try --dtype fp32.`,
  );
}

const textOf = (slot: TextSlot) => (slot === "cond" ? "prompt" : "negative prompt");

/** @returns the number of frames. */
async function decode({ task, vae, sampler, dump }: Run, sender: FrameSender): Promise<number> {
  const { frames: latentFrames, height, width } = task.size;
  const total = videoFrames(latentFrames);
  const video = dump.video(total, 8 * height, 8 * width);
  if (!task.dump) {
    for await (const chunk of vae.decodeToBytes(sampler.sample)) await sender.send(chunk);
    return total;
  }
  // Every rank takes this branch if one does; only rank 0 collects.
  for await (const chunk of vae.decode(sampler.sample)) {
    video?.(chunk);
    await sender.send({ ...chunk, pixels: bytesOfPixels(chunk.pixels) });
  }
  return total;
}
