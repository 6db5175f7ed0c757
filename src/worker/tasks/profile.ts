import type { Job, ProfileTask } from "../../protocol/job.js";
import type { Phases, ProfileRank, TraceEvent } from "../../protocol/results.js";
import type { Store } from "../store.js";
import { randomInputs } from "./inputs.js";
import { requireFinite, type Session, withSession } from "./session.js";

/** Warm-up, then timed forwards (as one graph where the plan says so), then one more with an event around every kernel. */
export function runProfile(job: Job, task: ProfileTask, store: Store): Promise<ProfileRank> {
  return withSession(job, task, store, async (session) => {
    const { context, dit } = session;
    const { device, plan } = context;
    await dit.setInputs(await randomInputs(device, task.model, task.seed));

    // The first forward also loads kernels and picks GEMM algorithms, none of which a capture may do.
    context.world.barrier();
    dit.forward();
    await device.synchronize();
    requireFinite(task, await device.download(dit.output));
    const graph = plan.graph ? device.capture(() => dit.forward()) : undefined;
    const run = () =>
      graph === undefined ? dit.forward() : device.kernels.call("graphLaunch", graph, device.streams.compute);

    const latenciesMs: number[] = [];
    for (let iteration = -task.warmup; iteration < task.iterations; iteration++) {
      // All ranks start together, so that a rank's time holds no wait for another's late start.
      context.world.barrier();
      const elapsed = device.time(run);
      await device.synchronize();
      const milliseconds = elapsed();
      if (iteration >= 0) latenciesMs.push(milliseconds);
    }
    const { phases, ringWaitsMs, trace } = await recordPhases(session);
    if (graph !== undefined) device.kernels.call("graphDestroy", graph);
    const { peakTflops } = device.info;
    return {
      rank: store.rank,
      device: device.info.name,
      latenciesMs,
      phases,
      ringWaitsMs,
      peakMemoryBytes: device.kernels.memoryUsed().peak,
      modelFlops: dit.flops,
      peakTflops: [plan.linear.dtype, plan.attention.dtype].includes("e4m3")
        ? peakTflops.e4m3
        : plan.dtype === "bf16"
          ? peakTflops.bf16
          : peakTflops.f32,
      trace: task.trace ? trace : [],
    };
  });
}

/**
 * Time on the compute stream by phase. Attention's wait for ring blocks is counted as communication: the kernel itself
 * measures it, block by block.
 */
async function recordPhases({
  context,
  dit,
}: Session): Promise<{ phases: Phases; ringWaitsMs: number[]; trace: TraceEvent[] }> {
  const { device } = context;
  await dit.takeRingWaits();
  context.world.barrier();
  const trace = await device.record(() => dit.forward());
  const ringWaitsMs = await dit.takeRingWaits();
  const waited = ringWaitsMs.reduce((sum, wait) => sum + wait, 0);
  const phases: Phases = { attention: -waited, gemm: 0, elementwise: 0, communication: waited };
  for (const event of trace) {
    if (event.stream === "compute") phases[event.phase] += event.durationMicroseconds / 1e3;
  }
  return { phases, ringWaitsMs, trace };
}
