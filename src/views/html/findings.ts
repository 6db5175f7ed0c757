import type { Plan } from "../../plan/schema.js";
import type { KernelTotal, Phases } from "../../protocol/results.js";
import { phaseNames } from "../../protocol/results.js";
import { counted } from "../../text.js";
import { figures, threeDigits } from "../figures.js";
import { mean, sum } from "../statistics.js";

/** Something that costs time. */
export interface Finding {
  readonly what: string;
  readonly why: string;
  /** Milliseconds of a forward, if it were gone: an upper bound. Null where it cannot be said. */
  readonly gainMs: number | null;
}

/** What a rank's recorded forward took. */
export interface RankFacts {
  readonly rank: number;
  readonly recordedMs: number;
  readonly phases: Phases;
  readonly ringWaitsMs: readonly number[];
  readonly kernels: readonly KernelTotal[];
}

export interface ForwardFacts {
  readonly ranks: readonly RankFacts[];
  readonly plan: Pick<Plan, "graph" | "mesh">;
  readonly workers: number;
  readonly processors: number;
  /** Of forwards that were timed, where some were. */
  readonly latencyMs?: { readonly median: number; readonly p90: number };
  /** A mesh with less of what is waited for. */
  readonly otherMesh?: (ringWaits: boolean) => string | undefined;
}

/** Shares of a forward from which something is worth a line. */
const WORTH = 0.02;
/** Kernels that are named. */
const MOST_KERNELS = 3;

const computed = ({ attention, gemm, elementwise }: Phases) => attention + gemm + elementwise;
const idleOf = ({ recordedMs, phases }: RankFacts) =>
  Math.max(0, recordedMs - sum(phaseNames.map((name) => phases[name])));

/** What costs time, the most first. Gains do not add up: what one removes another may have hidden. */
export function findingsOf(facts: ForwardFacts): Finding[] {
  const { ranks, workers, processors } = facts;
  const forwardMs = mean(ranks.map(({ recordedMs }) => recordedMs));
  const found = [...waits(facts), ...idle(facts), ...uneven(facts), ...kernels(facts), ...jitter(facts)];
  const worth = found.filter(({ gainMs }) => gainMs === null || gainMs >= WORTH * forwardMs);
  const sorted = worth.sort((a, b) => (b.gainMs ?? 0) - (a.gainMs ?? 0));
  if (workers <= processors) return sorted;
  const shared: Finding = {
    what: `${counted(workers, "worker")} share ${counted(processors, "processor")}`,
    why: "Their waits are for a turn, not for each other. What follows tells where time goes, but not what a machine with a processor for each would gain.",
    gainMs: null,
  };
  return [shared, ...sorted];
}

function waits({ ranks, otherMesh }: ForwardFacts): Finding[] {
  const ring = mean(ranks.map(({ ringWaitsMs }) => sum(ringWaitsMs)));
  const rest = mean(ranks.map(({ phases }) => phases.communication)) - ring;
  const advice = (ringWaits: boolean) => {
    const mesh = otherMesh?.(ringWaits);
    return mesh === undefined ? "" : ` Try ${mesh}.`;
  };
  const largest = (ranks[0]?.kernels ?? [])
    .filter(({ phase, launches }) => phase === "communication" && launches > 0)
    .sort((a, b) => b.milliseconds - a.milliseconds)[0];
  return [
    {
      what: "Attention waits for the ring's blocks",
      why: `Keys and values of other ranks come too late to be hidden behind what is computed meanwhile.${advice(true)}`,
      gainMs: ring,
    },
    {
      what: "Sums and gathers between workers",
      why: `Nothing is computed while they run${largest ? `; the largest is ${largest.name} ${largest.shape}, ${figures(largest.milliseconds)} ms on rank 0` : ""}.${advice(false)}`,
      gainMs: rest,
    },
  ];
}

function idle({ ranks, plan, latencyMs }: ForwardFacts): Finding[] {
  const gap = mean(ranks.map(idleOf));
  // As one graph the timed forwards have fewer gaps than the recorded one: what is left is at most their difference from its work.
  const busy = mean(ranks.map((rank) => rank.recordedMs - idleOf(rank)));
  const gainMs = plan.graph && latencyMs ? Math.max(0, Math.min(gap, latencyMs.median - busy)) : gap;
  const why = plan.graph
    ? "The forwards that are timed are one graph, which hides most of what launching costs."
    : "Between kernels nothing runs. graph: true in the plan launches the whole forward at once.";
  return [{ what: "Nothing runs between kernels", why, gainMs }];
}

function uneven({ ranks }: ForwardFacts): Finding[] {
  if (ranks.length === 1) return [];
  const own = ranks.map(({ phases }) => computed(phases));
  const most = Math.max(...own);
  const slowest = ranks[own.indexOf(most)]?.rank ?? 0;
  const gainMs = most - mean(own);
  return [
    {
      what: `Rank ${slowest} computes the longest`,
      why: `${figures(most)} ms of its own work, ${figures(mean(own))} in the mean; the others wait for it.`,
      gainMs,
    },
  ];
}

function kernels({ ranks }: ForwardFacts): Finding[] {
  const [first] = ranks;
  return (first?.kernels ?? [])
    .flatMap(({ name, shape, phase, milliseconds, roofMs, launches }) =>
      phase === "communication" || roofMs === null || roofMs === 0
        ? []
        : [
            {
              what: `${name} ${shape}`.trimEnd(),
              why: `${launches} × launched, they take ${figures(milliseconds)} ms, at ${threeDigits((100 * roofMs) / milliseconds)} % of the device's peaks, which would allow ${figures(roofMs)} ms.`,
              gainMs: milliseconds - roofMs,
            },
          ],
    )
    .sort((a, b) => b.gainMs - a.gainMs)
    .slice(0, MOST_KERNELS);
}

function jitter({ latencyMs }: ForwardFacts): Finding[] {
  if (!latencyMs) return [];
  const { median, p90 } = latencyMs;
  const why = `One forward in ten takes ${figures(p90)} ms or more, the median ${figures(median)} ms: something else uses the machine, or clocks change.`;
  return [{ what: "Forwards differ in time", why, gainMs: p90 - median }];
}
