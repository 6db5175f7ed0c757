import { availableParallelism } from "node:os";
import type { DeviceChoice } from "../engine/choose-device.js";
import { traitsOf } from "../models/registry.js";
import type { Model } from "../models/schema.js";
import { planTitle } from "../plan/names.js";
import type { ProfileTask, WanProfileTask } from "../protocol/job.js";
import { type KernelTotal, type Phase, type Phases, type ProfileRank, phaseNames } from "../protocol/results.js";
import { counted } from "../text.js";
import { figures, threeDigits } from "./figures.js";
import { type Page, paint, prose } from "./page.js";
import { type Latency, latencyOf, mean, sum } from "./statistics.js";
import { type Column, formatTable } from "./table.js";

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
  /** GPUs of the host, or 1 on a CPU. */
  deviceCount: number;
  /** What workers run on at the same time: GPUs, or cores of the CPU. */
  processors: number;
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
  cores = availableParallelism(),
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
    deviceCount: device.count,
    processors: device.device === "cuda" ? device.count : cores,
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

/** What the tables show of a rank, or of several. */
type Shown = Pick<
  RankSummary,
  "latencyMs" | "tflops" | "peakShare" | "peakMemoryBytes" | "recordedMs" | "phases" | "ringWaitsMs"
> & { readonly name: string };

/** With more ranks than this, the least and the most of each column stand for them. */
const MOST_ROWS = 16;

/** Milliseconds of the recorded forward in which the compute stream had nothing to do. */
export const idleMs = ({ recordedMs, phases }: Pick<Shown, "recordedMs" | "phases">): number =>
  Math.max(0, recordedMs - sum(phaseNames.map((name) => phases[name])));

const gibibytes = (bytes: number) => (bytes / 2 ** 30).toFixed(2);

const timedColumns: readonly Column<Shown>[] = [
  { head: "rank", align: "left", cell: ({ name }) => name },
  { head: "median ms", cell: ({ latencyMs }) => figures(latencyMs.median) },
  { head: "p10 ms", short: "p10", drop: 1, cell: ({ latencyMs }) => figures(latencyMs.p10) },
  { head: "p90 ms", short: "p90", cell: ({ latencyMs }) => figures(latencyMs.p90) },
  { head: "TFLOP/s", cell: ({ tflops }) => figures(tflops) },
  {
    head: "of peak",
    cell: ({ peakShare }) => (peakShare === null ? "" : `${(100 * peakShare).toFixed(1)} %`),
  },
  { head: "memory GiB", short: "GiB", cell: ({ peakMemoryBytes }) => gibibytes(peakMemoryBytes) },
];

const phaseColumn = (phase: Phase, short: string): Column<Shown> => ({
  head: `${phase} ms`,
  short,
  cell: ({ phases }) => figures(phases[phase]),
});

const recordedColumns: readonly Column<Shown>[] = [
  { head: "rank", align: "left", cell: ({ name }) => name },
  { head: "forward ms", short: "ms", cell: ({ recordedMs }) => figures(recordedMs) },
  phaseColumn("attention", "attention"),
  phaseColumn("gemm", "gemm"),
  phaseColumn("elementwise", "elementwise"),
  phaseColumn("communication", "communication"),
  { head: "idle ms", short: "idle", cell: (rank) => figures(idleMs(rank)) },
  {
    head: "ring waits ms",
    short: "(ring)",
    drop: 1,
    cell: ({ ringWaitsMs }) => (ringWaitsMs.length < 2 ? "" : figures(sum(ringWaitsMs))),
  },
];

/** The rows: one for each rank, or the least and the most where there are many; and one for all, where there are several. */
function rowsOf(summary: ProfileSummary): Shown[] {
  const { ranks } = summary;
  const rows = ranks.map((rank) => ({ ...rank, name: String(rank.rank) }));
  if (ranks.length === 1) return rows;
  const all: Shown = {
    ...summary,
    name: "all",
    peakMemoryBytes: Math.max(...ranks.map((rank) => rank.peakMemoryBytes)),
    recordedMs: mean(ranks.map((rank) => rank.recordedMs)),
    ringWaitsMs: (ranks[0]?.ringWaitsMs ?? []).map((_, step) => mean(ranks.map((rank) => rank.ringWaitsMs[step] ?? 0))),
  };
  return ranks.length <= MOST_ROWS ? [...rows, all] : [all];
}

/** The least and the most of a column over the ranks, `12.30–14.10`, where they are too many for a row each. */
function spread(columns: readonly Column<Shown>[], ranks: readonly RankSummary[]): Column<Shown>[] {
  const shown = ranks.map((rank) => ({ ...rank, name: String(rank.rank) }));
  return columns.map((column, index) => ({
    ...column,
    cell: (row) => {
      if (index === 0) return row.name === "all" ? "all" : row.name;
      if (row.name === "all") return column.cell(row);
      const cells = shown.map((rank) => column.cell(rank)).filter((cell) => cell !== "");
      const sorted = cells.toSorted((a, b) => Number.parseFloat(a) - Number.parseFloat(b));
      return (row.name === "least" ? sorted[0] : sorted.at(-1)) ?? "";
    },
  }));
}

/** Two tables of one profile, a row per rank and one for all: the forwards that were timed, and the one that was recorded. */
export function profileTable(page: Page, summary: ProfileSummary): string {
  const { model, plan, worldSize, device, iterations, warmup, throughput, ranks } = summary;
  const own = rowsOf(summary);
  const [all] = own;
  const many = ranks.length > MOST_ROWS && all !== undefined;
  const rows = many ? [{ ...all, name: "least" }, { ...all, name: "most" }, all] : own;
  const table = (columns: readonly Column<Shown>[]) => formatTable(page, many ? spread(columns, ranks) : columns, rows);
  const several = ranks.length > 1;
  return [
    paint(page, "bold", prose(page, `${model.name}, ${planTitle(plan)}, ${counted(worldSize, "worker")}, ${device}`)),
    "",
    prose(
      page,
      `Timed: ${counted(iterations, "forward")} after ${warmup} to warm up, ${figures(throughput)} ${traitsOf(model).makes}/s`,
    ),
    table(timedColumns),
    ...(several ? [prose(page, "all: the slowest rank of each forward, the most memory.")] : []),
    "",
    prose(page, "Recorded: one more forward, each kernel launched by itself with a clock around it"),
    table(recordedColumns),
    prose(page, recordedNote(summary)),
  ].join("\n");
}

/** What the columns of the recorded forward add up to. */
function recordedNote({ ranks, latencyMs, recordedMs }: ProfileSummary): string {
  const several = ranks.length > 1;
  const rings = ranks.some(({ ringWaitsMs }) => ringWaitsMs.length > 1);
  return [
    `${several ? "all: means. " : ""}The four kinds and idle add up to the forward, which is not one of those timed: ${figures(recordedMs)} ms${several ? " on the slowest rank" : ""}, timed ${figures(latencyMs.median)} ms.`,
    "Idle: nothing ran.",
    rings ? "Waits for the ring's blocks are part of communication, not of attention." : "",
  ]
    .filter((sentence) => sentence !== "")
    .join(" ");
}

/** What several workers gain over one. */
export interface Speedup {
  readonly workers: number;
  /** How many times as fast. */
  readonly factor: number;
  /** At most: one for each worker, as far as there are processors for them. */
  readonly ideal: number;
  /** factor / ideal. */
  readonly efficiency: number;
}

export function speedupOf(
  { latencyMs, worldSize, processors }: Pick<ProfileSummary, "latencyMs" | "worldSize" | "processors">,
  alone: Pick<ProfileSummary, "latencyMs">,
): Speedup {
  const factor = alone.latencyMs.median / latencyMs.median;
  const ideal = Math.min(worldSize, processors);
  return { workers: worldSize, factor, ideal, efficiency: factor / ideal };
}

/** A row for the plan and one for one worker. */
export function baselineTable(page: Page, summary: ProfileSummary, alone: ProfileSummary): string {
  const rows = [summary, alone].map((each) => ({
    name: planTitle(each.plan).replace(/^plan /, ""),
    workers: each.worldSize,
    latencyMs: each.latencyMs,
    tflops: each.tflops,
    times: alone.latencyMs.median / each.latencyMs.median,
    bytes: Math.max(...each.ranks.map((rank) => rank.peakMemoryBytes)),
  }));
  const columns: Column<(typeof rows)[number]>[] = [
    { head: "plan", align: "left", cell: ({ name }) => name },
    { head: "workers", cell: ({ workers }) => String(workers) },
    { head: "median ms", cell: ({ latencyMs }) => figures(latencyMs.median) },
    { head: "TFLOP/s", drop: 1, cell: ({ tflops }) => figures(tflops) },
    { head: "a worker's GiB", short: "GiB", cell: ({ bytes }) => gibibytes(bytes) },
    { head: "speed-up", cell: ({ times }) => `${threeDigits(times)} ×` },
  ];
  return [prose(page, "Beside one worker"), formatTable(page, columns, rows)].join("\n");
}
