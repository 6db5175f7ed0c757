import type { Plan } from "../../plan/schema.js";
import type { ProfileTask, WanProfileTask } from "../../protocol/job.js";
import type { KernelTotal, Phases, ProfileRank, Progress, TraceEvent } from "../../protocol/results.js";
import type { Context } from "../comm/context.js";
import type { Recording } from "../runtime/device.js";
import { freeGraph, launchGraph } from "../runtime/graph.js";
import type { DeviceInfo } from "../runtime/kernels.js";
import type { Tensor } from "../runtime/tensor.js";
import type { Store } from "../store.js";
import { requireFinite } from "./finite.js";
import type { Frame } from "./frame.js";
import { randomInputs } from "./inputs.js";
import { MemoryPoints, traceParts } from "./recording.js";
import { withSession } from "./session.js";
import { tell } from "./stage-clock.js";

/** A forward to time, whose inputs are set. */
export interface Subject {
  /** Queues it. */
  forward(): void;
  /** float32. */
  readonly output: Tensor;
  /** Floating-point operations, all ranks together. */
  readonly flops: number;
  /** As RingAttention.takeWaits. */
  takeRingWaits(): Promise<number[]>;
}

/** Times the DiT's forward. */
export function runProfile(frame: Frame, task: ProfileTask, store: Store): Promise<ProfileRank> {
  return withSession(frame, task, store, async ({ context, dit }) => {
    await dit.setInputs(await randomInputs(context.device, task.model, task.seed));
    return profileForward(context, dit, task, store);
  });
}

/** Warm-up, then timed forwards (as one graph where the plan says so), then one more with an event around every kernel. */
export async function profileForward(
  context: Context,
  subject: Subject,
  task: ProfileTask | WanProfileTask,
  store: Pick<Store, "rank" | "emit" | "time">,
): Promise<ProfileRank> {
  const { device, plan } = context;
  const memory = new MemoryPoints(device);
  memory.add("loading");
  const { warmup, iterations } = task;
  const told = (stage: Progress["stage"], done: number, total: number, milliseconds: number) =>
    tell(store, { stage, done, total, milliseconds });
  // The model is there.
  await told("load", 1, 1, 0);
  const first = performance.now();
  // The first forward also loads kernels and picks GEMM algorithms, none of which a capture may do.
  context.world.barrier();
  subject.forward();
  await device.synchronize();
  const check = async () => requireFinite(`The output of ${task.model.name}`, await device.download(subject.output));
  await check();
  await told("first", 1, 1, performance.now() - first);
  memory.add("the first forward");
  const graph = plan.graph ? device.capture(() => subject.forward()) : undefined;
  const run = () => (graph === undefined ? subject.forward() : launchGraph(device, graph));

  const latenciesMs: number[] = [];
  for (let iteration = -warmup; iteration < iterations; iteration++) {
    // All ranks start together, so that a rank's time holds no wait for another's late start.
    context.world.barrier();
    const elapsed = device.time(run);
    await device.synchronize();
    const milliseconds = elapsed();
    if (iteration >= 0) latenciesMs.push(milliseconds);
    if (iteration < 0) await told("warm up", warmup + iteration + 1, warmup, milliseconds);
    else await told("forward", iteration + 1, iterations, milliseconds);
  }
  // What replays leave, before another forward writes over it.
  await check();
  memory.add("the timed forwards");
  const { recordedMs, phases, ringWaitsMs, recording } = await recordPhases(context, {
    ...{ takeRingWaits: () => subject.takeRingWaits() },
    forward: () => device.spanOf("forward", "forward", () => subject.forward()),
  });
  const { events } = recording;
  memory.add("the recorded forward");
  await told("record", 1, 1, recordedMs);
  if (graph !== undefined) freeGraph(device, graph);
  return {
    rank: store.rank,
    device: device.info.name,
    latenciesMs,
    recordedMs,
    phases,
    ringWaitsMs,
    kernels: kernelTotals(events, device.info, sum(ringWaitsMs)),
    peakMemoryBytes: device.kernels.memoryUsed().peak,
    modelFlops: subject.flops,
    ...peaksOf(device.info, plan),
    ...(await traceParts(recording, task.trace ? store : undefined)),
    memory: memory.points,
  };
}

/** What a recorded forward took on the compute stream by phase (as phasesSchema means them). */
export interface RecordedForward {
  readonly recordedMs: number;
  readonly phases: Phases;
  readonly ringWaitsMs: number[];
  readonly recording: Recording;
}

/** One forward with a clock around every launch. Every rank calls it. */
export async function recordPhases(
  { device, world }: Context,
  subject: Pick<Subject, "forward" | "takeRingWaits">,
): Promise<RecordedForward> {
  await subject.takeRingWaits();
  world.barrier();
  const recording = await device.record(() => subject.forward());
  const ringWaitsMs = await subject.takeRingWaits();
  const computed = recording.events.filter(({ stream }) => stream === "compute");
  const ends = computed.map(({ startMicroseconds, durationMicroseconds }) => startMicroseconds + durationMicroseconds);
  return {
    recordedMs: Math.max(0, ...ends) / 1e3,
    phases: phasesOf(computed, sum(ringWaitsMs)),
    ringWaitsMs,
    recording,
  };
}

/** Attention's waits for the ring's blocks, which its kernel measures itself, are communication. */
export function phasesOf(computed: readonly TraceEvent[], waitedMs: number): Phases {
  const phases: Phases = { attention: -waitedMs, gemm: 0, elementwise: 0, communication: waitedMs };
  for (const { phase, durationMicroseconds } of computed) phases[phase] += durationMicroseconds / 1e3;
  return phases;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** What the device can do at most with the narrowest of the plan's dtypes. */
export function peaksOf({ peakTflops, peakGBs }: DeviceInfo, plan: Plan) {
  const narrowest = [plan.linear.dtype, plan.attention.dtype].includes("e4m3") ? "e4m3" : plan.dtype;
  return { peakTflops: peakOf(peakTflops, narrowest), peakGBs };
}

/** Dense peak for products of this dtype, in TFLOP/s. */
function peakOf({ f32, bf16, e4m3 }: DeviceInfo["peakTflops"], dtype: string | undefined): number | null {
  return dtype === "e4m3" ? e4m3 : dtype === "bf16" || dtype === "fp16" ? bf16 : f32;
}

/**
 * What each kernel took with each shape, on the compute stream, and what it would take at the device's peaks. The phases of the
 * totals add up to phasesOf: attention's waits for the ring's blocks are taken out of it, and are a total of communication.
 * @param waitedMs those waits, all launches together.
 */
export function kernelTotals(
  trace: readonly TraceEvent[],
  { peakTflops, peakGBs }: Pick<DeviceInfo, "peakTflops" | "peakGBs">,
  waitedMs: number,
): KernelTotal[] {
  const totals = new Map<string, KernelTotal>();
  const waitingMs = sum(trace.map(({ waits, durationMicroseconds }) => (waits ? durationMicroseconds / 1e3 : 0)));
  const waitShare = waitingMs === 0 ? 0 : waitedMs / waitingMs;
  for (const { name, shape, phase, stream, flops, bytes, dtype, waits, durationMicroseconds } of trace) {
    if (stream !== "compute") continue;
    const key = `${name} ${shape}`;
    const none = { name, shape, phase, launches: 0, milliseconds: 0, flops: 0, bytes: 0, roofMs: 0 };
    const total: KernelTotal = totals.get(key) ?? none;
    const tflops = peakOf(peakTflops, dtype);
    const roof = peakGBs === null || tflops === null ? null : Math.max(bytes / (peakGBs * 1e6), flops / (tflops * 1e9));
    totals.set(key, {
      ...total,
      launches: total.launches + 1,
      milliseconds: total.milliseconds + (durationMicroseconds / 1e3) * (waits ? 1 - waitShare : 1),
      flops: total.flops + flops,
      bytes: total.bytes + bytes,
      roofMs: roof === null || total.roofMs === null ? null : total.roofMs + roof,
    });
  }
  if (waitShare > 0) {
    const none = { launches: 0, flops: 0, bytes: 0, roofMs: 0 };
    const name = "attention's waits";
    totals.set(name, { name, shape: "for the ring's blocks", phase: "communication", milliseconds: waitedMs, ...none });
  }
  return [...totals.values()].sort((a, b) => b.milliseconds - a.milliseconds);
}
