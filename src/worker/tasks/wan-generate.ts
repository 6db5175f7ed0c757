import type { DitrunError } from "../../failure.js";
import { type Expert, expertOf, isUnguided } from "../../protocol/expert.js";
import type { WanGenerateTask, WanLoadTask } from "../../protocol/job.js";
import type { WanGenerateResult } from "../../protocol/results.js";
import { samplingPlan } from "../../sampling/scheduler.js";
import type { Context } from "../comm/context.js";
import type { NonfiniteCounter } from "../models/wan/nonfinite.js";
import type { TextEncoder } from "../models/wan/text-encoder.js";
import type { TextSlot } from "../models/wan/transformer.js";
import { bytesOfPixels } from "../models/wan/vae/pixels.js";
import { videoFrames } from "../models/wan/vae/vae.js";
import { copy } from "../ops/copy.js";
import type { Device } from "../runtime/device.js";
import { rowsOf, type Tensor, tensorBytes } from "../runtime/tensor.js";
import { RequestFault, Stopped, type Store, scoped } from "../store.js";
import { agreed } from "./agree.js";
import type { Frame } from "./frame.js";
import { FrameSender } from "./frame-sender.js";
import { PreviewSender } from "./preview-sender.js";
import { kernelTotals, peaksOf, recordPhases } from "./profile.js";
import { MemoryPoints, traceParts } from "./recording.js";
import { StageClock } from "./stage-clock.js";
import { Steps } from "./steps.js";
import { Timeline } from "./timeline.js";
import { WanDump } from "./wan-dump.js";
import { fillNoise, hostNoise } from "./wan-noise.js";
import type { OpenWan, VideoProgram } from "./wan-open.js";

/** Two texts to a video: encodes both, samples with guidance, decodes; rank 0 hands frames and progress to the launcher. */
export async function runWanGenerate(frame: Frame, task: WanGenerateTask, store: Store): Promise<WanGenerateResult> {
  const clock = new StageClock(store);
  const noise = await agreed(store, "noise", () => hostNoise(task));
  const wan = await frame.openWan(task, store);
  const { device } = frame;
  const prepared = await wan.prepare(task, store);
  await store.barrier("loaded");
  let prepareMs = await clock.end("prepare");

  const timeline = new Timeline();
  const memory = new MemoryPoints(device);
  memory.add("getting ready");
  const steps = new Steps(store);
  const dump = new WanDump(task.dump, store.rank, task.replace);
  const { nonfinite } = wan;
  const texts = await wan.withEncoder(() =>
    encode({ task, device, nonfinite, dump, texts: wan.texts }, prepared.encoder),
  );
  let encodeMs = clock.lap();
  timeline.stage("encode");
  let { program } = prepared;
  if (!program) {
    program = await wan.program(task, store);
    await store.barrier("others loaded");
    prepareMs = await clock.end("prepare", 1, prepareMs);
    timeline.stage("prepare");
  }
  const { context, value } = program;
  const run = { wan, texts, task, store, context, clock, dump, nonfinite, steps, timeline, ...value };
  return program.enter(async () => {
    const { guidance, sampler, transformer } = run;
    const plan = samplingPlan(task.sampling);
    sampler.begin(plan, task.seed);
    await useExpert(run, expertOf(plan.timesteps[0] ?? 0, task.sampling), "first");
    await device.synchronize();
    encodeMs = await clock.end("encode", 1, encodeMs);
    timeline.stage("keys and values of the texts");
    memory.add("encoding");

    await fillNoise(device, sampler.sample, task, noise);
    sampler.scale(task.sampling.initialScale ?? 1);
    const previews = new PreviewSender({ device, store, sampler, vae: run.vae });
    const { stepsMs, forwardsMs, switchMs } = await samplingLoop(run, previews).catch(async (error: unknown) => {
      // What is on its way is answered before this rank says that it has stopped.
      await previews.flush().catch(() => undefined);
      throw error;
    });
    await previews.flush();
    const sampleMs = await clock.end("sample", task.sampling.steps);
    timeline.stage("sample");
    memory.add("sampling");
    const sender = new FrameSender(store);
    const frames = await decode(run, sender);
    const decodeMs = await clock.end("decode", frames);
    timeline.stage("decode");
    memory.add("decoding");
    await sender.flush();
    await device.synchronize();

    await dump.write();
    return {
      rank: store.rank,
      device: device.info.name,
      stages: { prepareMs, encodeMs, sampleMs, decodeMs },
      load: wan.loaded,
      memory: prepared.memory,
      stepsMs,
      switchMs,
      forwardsMs,
      forwardsAtOnce: guidance.forwardsAtOnce,
      forwardFlops: transformer.flops,
      heldMemoryBytes: device.kernels.memoryUsed().now,
      peakMemoryBytes: device.kernels.memoryUsed().peak,
      ...(task.trace && { recording: await recordingOf(context, timeline, memory, store) }),
    };
  });
}

/** Loads the weights of a model that stays, and makes ready what a video of this size needs. */
export async function runWanLoad(frame: Frame, task: WanLoadTask, store: Store): Promise<null> {
  const wan = await frame.openWan(task, store);
  await wan.prepare(task, store);
  return null;
}

async function recordingOf({ device, plan }: Context, timeline: Timeline, { points }: MemoryPoints, store: Store) {
  const { step, recorded, recording } = timeline.parts();
  const { info } = device;
  const { recordedMs, phases, ringWaitsMs } = recorded;
  const kernels = kernelTotals(
    recording.events,
    info,
    ringWaitsMs.reduce((sum, each) => sum + each, 0),
  );
  const forward = { recordedMs, phases, ringWaitsMs, kernels, ...peaksOf(info, plan) };
  return { ...(await traceParts(recording, store)), step, ...forward, memory: points };
}

interface Run extends VideoProgram {
  readonly wan: OpenWan;
  readonly texts: Record<TextSlot, Tensor>;
  readonly task: WanGenerateTask;
  readonly store: Store;
  readonly context: Context;
  readonly clock: StageClock;
  readonly dump: WanDump;
  readonly nonfinite: NonfiniteCounter;
  readonly steps: Steps;
  readonly timeline: Timeline;
}

/** Both texts through the encoder, into `texts`: float32 [tokens, width] each. */
async function encode(
  {
    task,
    device,
    nonfinite,
    dump,
    texts,
  }: Pick<Run, "task" | "nonfinite" | "dump"> & {
    readonly device: Device;
    readonly texts: Record<TextSlot, Tensor>;
  },
  encoder: TextEncoder,
): Promise<Record<TextSlot, Tensor>> {
  const kept = async (slot: TextSlot, name: string, ids: readonly number[]): Promise<Tensor> => {
    const text = await encoder.encode(ids);
    const bad = await nonfinite.count(text);
    if (bad > 0) {
      throw new RequestFault(
        "ERR_NOT_FINITE",
        `The text encoder's output for the ${textOf(slot)} has ${bad} values that are not finite: check the checkpoint's text encoder, or try --dtype fp32.`,
      );
    }
    await dump.add(name, text.shape, () => device.download(text));
    const out = rowsOf(texts[slot], 0, text.shape[0] ?? 0);
    copy(device, out, text, tensorBytes("fp32", text.shape));
    return out;
  };
  const cond = await kept("cond", "context", task.ids.prompt);
  // Guidance 1 does not look at it.
  const unused = isUnguided(task.sampling) && task.dump === undefined;
  const uncond = unused ? cond : await kept("uncond", "context_null", task.ids.negative);
  await device.synchronize();
  return { cond, uncond };
}

/** Puts a transformer in place, which gets the texts anew. @param name of this in the request. @returns milliseconds that it took. */
async function useExpert(run: Run, expert: Expert, name: string): Promise<number> {
  const { wan, guidance, transformer, texts, task, store } = run;
  const milliseconds = await wan.use(expert, run, task, scoped(store, name));
  for (const slot of guidance.slots) await transformer.setText(slot, texts[slot]);
  return milliseconds;
}

async function samplingLoop(
  run: Run,
  previews: PreviewSender,
): Promise<{ stepsMs: number[]; forwardsMs: number[]; switchMs: number }> {
  const { context, clock, task, sampler, guidance, transformer, nonfinite, dump, steps: tickets, timeline } = run;
  const { device } = context;
  const { steps } = task.sampling;
  const { timesteps } = samplingPlan(task.sampling);
  const stepsMs: number[] = [];
  const forwardsMs: number[] = [];
  let switchMs = 0;
  let expert = expertOf(timesteps[0] ?? 0, task.sampling);
  context.world.barrier();
  for (const [index, timestep] of timesteps.entries()) {
    const { preview } = await tickets.begin();
    const started = performance.now();
    const wanted = expertOf(timestep, task.sampling);
    if (wanted !== expert) switchMs += await useExpert(run, wanted, `step ${index}`);
    expert = wanted;
    await timeline.step(`step ${index + 1}`, async () => {
      await transformer.setTime(timestep);
      const times = await forwards(run, index);
      previews.send();
      // Before the sample is updated, so that the forwards can be run again on what they were given.
      const bad = await nonfinite.count(guidance.velocity);
      if (bad > 0) throw await notFinite(run, index, bad);
      sampler.step(index, guidance.velocity);
      tickets.ask();
      await dump.add(`latent.${index}`, sampler.sample.shape, () => device.download(sampler.sample));
      if (preview) await previews.fetch(index + 1);
      await device.synchronize();
      forwardsMs.push(...times.map((time) => time()));
    });
    stepsMs.push(performance.now() - started);
    if (index + 1 < steps) await clock.progress("sample", index + 1, steps);
  }
  // Between steps, the next step's prediction shows it.
  const bad = await nonfinite.count(sampler.sample);
  if (bad > 0) {
    throw new RequestFault(
      "ERR_NOT_FINITE",
      `The latent after step ${steps} of ${steps} has ${bad} values that are not finite, though the prediction is finite: use a lower --guide-scale.`,
    );
  }
  return { stepsMs, forwardsMs, switchMs };
}

/** The forwards of a step. For a trace the second is recorded: the first one also loads kernels. */
async function forwards(
  { task, guidance, transformer, context, timeline }: Run,
  index: number,
): Promise<(() => number)[]> {
  const quantised = isQuantised(index, task);
  if (!task.trace || index !== Math.min(1, task.sampling.steps - 1)) return guidance.forward(quantised);
  let times: (() => number)[] = [];
  const recorded = await recordPhases(context, {
    forward: () => {
      times = guidance.forward(quantised, true);
    },
    takeRingWaits: () => transformer.takeRingWaits(),
  });
  timeline.recorded(index + 1, recorded);
  return times;
}

/** The first and the last steps decide the most: they may be left in the plan's dtype. */
export function isQuantised(
  step: number,
  { bf16Steps = 0, sampling }: Pick<WanGenerateTask, "bf16Steps" | "sampling">,
) {
  return step >= bf16Steps && step < sampling.steps - bf16Steps;
}

async function notFinite({ nonfinite, guidance, store, task }: Run, index: number, bad: number): Promise<RequestFault> {
  const culprit = await nonfinite.findCulprit(guidance, store);
  const where = culprit
    ? `the first layer to have any is ${culprit.layer} in the forward of the ${textOf(culprit.slot)} on rank ${culprit.rank}`
    : "but all layers are finite when they run again";
  return new RequestFault(
    "ERR_NOT_FINITE",
    `At step ${index + 1} of ${task.sampling.steps} the guided prediction has ${bad} values that are not finite; ${where}: check the weights and the noise, or try --dtype fp32.`,
  );
}

const textOf = (slot: TextSlot) => (slot === "cond" ? "prompt" : "negative prompt");

/** @returns the number of frames. */
async function decode({ task, store, vae, sampler, dump, steps }: Run, sender: FrameSender): Promise<number> {
  const { frames: latentFrames, height, width } = task.size;
  const total = videoFrames(latentFrames);
  const video = dump.video(total, 8 * height, 8 * width);
  let fault: DitrunError | undefined;
  const before = async () => {
    await steps.begin();
    steps.ask();
  };
  const options = {
    before,
    // Pixels are this rank's own: it goes on until all ranks stop at the same frames.
    fault: async (error: DitrunError) => {
      fault = error;
      await store.fault(error);
    },
  };
  await before();
  try {
    if (!task.dump) {
      for await (const chunk of vae.decodeToBytes(sampler.sample, options)) await sender.send(chunk);
    } else {
      // Every rank takes this branch if one does; only rank 0 collects.
      for await (const chunk of vae.decode(sampler.sample, options)) {
        video?.(chunk);
        await sender.send({ ...chunk, pixels: bytesOfPixels(chunk.pixels) });
      }
    }
  } catch (error) {
    // What is on its way is answered, whoever wants it, before this rank says that it has stopped.
    await sender.flush();
    throw error;
  }
  if (fault) {
    await sender.flush();
    throw new Stopped(fault.message);
  }
  return total;
}
