import type { DeviceChoice } from "../engine/choose-device.js";
import { traitsOf } from "../models/registry.js";
import type { Model } from "../models/schema.js";
import { planTitle } from "../plan/resolve.js";
import type { ProfileTask, WanProfileTask } from "../protocol/job.js";
import { type KernelTotal, type Phases, type ProfileRank, phaseNames } from "../protocol/results.js";
import { counted } from "../text.js";
import { type Latency, latencyOf, mean } from "./statistics.js";
import { formatTable } from "./table.js";

interface RankSummary {
  rank: number;
  device: string;
  latencyMs: Latency;
  /** This rank's part of the model's floating-point operations over its own median latency, in TFLOP/s. */
  tflops: number;
  peakShare: number | null;
  peakMemoryBytes: number;
  /** The forward that phases, ring waits and kernels are of; not one of those that were timed. */
  recordedMs: number;
  phases: Phases;
  /** The same, with the unit in its name. */
  phasesMs: Phases;
  /** By ring step, what attention waited for, in milliseconds of one forward. */
  ringWaitsMs: number[];
  kernels: KernelTotal[];
}

export interface ProfileSummary {
  latencyMs: Latency;
  /** Forwards per second: of the DiT, images. */
  throughput: number;
  /** The same, with the unit in its name. */
  throughputPerSecond: number;
  tflops: number;
  /** tflops over the dense peak of the devices in use; null where that is not known. */
  peakShare: number | null;
  plan: ProfileTask["plan"];
  model: Model;
  device: string;
  worldSize: number;
  warmup: number;
  iterations: number;
  /** The recorded forward on the slowest rank; its phases are means over the ranks, in milliseconds. */
  recordedMs: number;
  phases: Phases;
  phasesMs: Phases;
  ranks: RankSummary[];
}

/** Sums up what the ranks measured. An iteration takes as long as its slowest rank. */
export function summarizeProfile(
  task: ProfileTask | WanProfileTask,
  ranks: readonly ProfileRank[],
  device: DeviceChoice,
): ProfileSummary {
  const [first] = ranks;
  if (!first) throw new RangeError("A profile needs at least one rank.");
  const slowest = first.latenciesMs.map((_, i) => Math.max(...ranks.map((rank) => rank.latenciesMs[i] ?? 0)));
  const latencyMs = latencyOf(slowest);
  const tflops = first.modelFlops / (latencyMs.median * 1e9);
  // Ranks that share a device share its peak.
  const devices = Math.min(ranks.length, device.count);
  const throughput = 1000 / latencyMs.median;
  const phases = {
    attention: mean(ranks.map(({ phases }) => phases.attention)),
    gemm: mean(ranks.map(({ phases }) => phases.gemm)),
    elementwise: mean(ranks.map(({ phases }) => phases.elementwise)),
    communication: mean(ranks.map(({ phases }) => phases.communication)),
  };
  return {
    latencyMs,
    throughput,
    throughputPerSecond: throughput,
    tflops,
    peakShare: first.peakTflops === null ? null : tflops / (first.peakTflops * devices),
    plan: task.plan,
    model: task.model,
    device: first.device,
    worldSize: ranks.length,
    warmup: task.warmup,
    iterations: task.iterations,
    recordedMs: Math.max(...ranks.map(({ recordedMs }) => recordedMs)),
    phases,
    phasesMs: phases,
    ranks: ranks.map((rank) => {
      const own = latencyOf(rank.latenciesMs);
      const ownTflops = rank.modelFlops / ranks.length / (own.median * 1e9);
      return {
        rank: rank.rank,
        device: rank.device,
        latencyMs: own,
        tflops: ownTflops,
        peakShare: rank.peakTflops === null ? null : ownTflops / rank.peakTflops,
        peakMemoryBytes: rank.peakMemoryBytes,
        recordedMs: rank.recordedMs,
        phases: rank.phases,
        phasesMs: rank.phases,
        ringWaitsMs: rank.ringWaitsMs,
        kernels: rank.kernels,
      };
    }),
  };
}

/** The table of one profile, a row per rank and one for all. */
export function profileTable(summary: ProfileSummary): string {
  const head = [
    "rank",
    "median ms",
    "p10",
    "p90",
    "TFLOP/s",
    "of peak",
    "GiB",
    ...phaseNames.map((name) => `${name} ms`),
  ];
  const row = (
    name: string,
    part: Pick<RankSummary, "latencyMs" | "tflops" | "peakShare" | "peakMemoryBytes" | "phases">,
  ) => [
    name,
    ...[part.latencyMs.median, part.latencyMs.p10, part.latencyMs.p90, part.tflops].map(figures),
    part.peakShare === null ? "not known" : `${(100 * part.peakShare).toFixed(1)} %`,
    (part.peakMemoryBytes / 2 ** 30).toFixed(2),
    ...phaseNames.map((phase) => figures(part.phases[phase])),
  ];
  const peakMemoryBytes = Math.max(...summary.ranks.map((rank) => rank.peakMemoryBytes));
  const rows = summary.ranks.map((rank) => row(String(rank.rank), rank));
  const { model, plan, worldSize, device, iterations, warmup, throughput, recordedMs } = summary;
  const workers = counted(worldSize, "worker");
  return [
    `${model.name}, ${planTitle(plan)}, ${workers}, ${device}; ${iterations} timed and ${warmup} warm-up forwards`,
    formatTable(head, [...rows, row("all", { ...summary, peakMemoryBytes })]),
    `${figures(throughput)} ${traitsOf(model).makes}/s (all: the slowest rank of each forward, the most memory, mean phases)`,
    `Phases and kernels are of one more forward, launched kernel by kernel with a clock around each: it took ${figures(recordedMs)} ms on the slowest rank.`,
  ].join("\n");
}

/** Three or more significant digits, without an exponent. */
export function figures(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || size === 0 ? 1 : size >= 1 ? 2 : size >= 0.01 ? 4 : 6);
}
