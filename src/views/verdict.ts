import { traitsOf } from "../models/registry.js";
import type { Model } from "../models/schema.js";
import { checkPlan } from "../plan/check.js";
import { meshName, type Plan } from "../plan/schema.js";
import { phaseNames } from "../protocol/results.js";
import { counted } from "../text.js";
import type { AccuracyResult } from "./accuracy-report.js";
import { figures, threeDigits } from "./figures.js";
import type { GenerateSummary } from "./generate-report.js";
import type { LinkSummary } from "./links-report.js";
import { idleMs, type ProfileSummary, type Speedup } from "./profile-report.js";
import { sum } from "./statistics.js";

// What the numbers of a command come to, in a sentence. Pure: each rule has its threshold here and a row in the test's table.

/** Shares of the recorded forward from which it is bound by what has the share. */
const BOUND_BY_COMMUNICATION = 0.25;
const BOUND_BY_LAUNCHES = 0.25;
/** A rank's own work over the ranks' mean, from which the shares of work are uneven. */
const UNEVEN = 1.2;
/** A recorded forward that takes so many times a timed one is another one: shares of it say nothing. */
const ANOTHER_FORWARD = 1.5;

const percent = (share: number) => `${(100 * share).toFixed(0)} %`;

type ProfileFacts = Pick<
  ProfileSummary,
  "latencyMs" | "recordedMs" | "peakShare" | "plan" | "model" | "worldSize" | "processors"
> & {
  readonly ranks: readonly Pick<ProfileSummary["ranks"][number], "rank" | "phases" | "recordedMs" | "ringWaitsMs">[];
};

/** What bounds a forward, by its recorded phases; or why they do not say. */
export function profileVerdict(profile: ProfileFacts): string {
  const { worldSize, processors, recordedMs, latencyMs, ranks, plan, model, peakShare } = profile;
  if (worldSize > processors) {
    return `none, since ${counted(worldSize, "worker")} share ${counted(processors, "processor")}: their waits are for a turn, not for each other.`;
  }
  if (recordedMs > ANOTHER_FORWARD * latencyMs.median) {
    return `none, since the recorded forward took ${threeDigits(recordedMs / latencyMs.median)} times as long as a timed one: its shares are not theirs.`;
  }
  const whole = sum(ranks.map((rank) => rank.recordedMs));
  const shareOf = (part: (rank: (typeof ranks)[number]) => number) => (whole === 0 ? 0 : sum(ranks.map(part)) / whole);
  const communication = shareOf(({ phases }) => phases.communication);
  if (communication >= BOUND_BY_COMMUNICATION) {
    const ring = shareOf(({ ringWaitsMs }) => sum(ringWaitsMs));
    const isRing = ring >= communication / 2;
    const what = isRing
      ? `${percent(ring)} of the time waits for the ring`
      : `${percent(communication)} of the time goes to sums, gathers and waits between workers`;
    const other = otherMesh(plan, model, isRing);
    return `communication-bound: ${what}${other === undefined ? "" : `; try ${other}`}.`;
  }
  const idle = shareOf(idleMs);
  if (idle >= BOUND_BY_LAUNCHES) {
    const graph = plan.graph
      ? "; the timed forwards are one graph, which hides some of it"
      : "; try graph: true in the plan";
    return `launch-bound: for ${percent(idle)} of the recorded forward nothing ran${graph}.`;
  }
  const own = ranks.map(({ phases }) => phases.attention + phases.gemm + phases.elementwise);
  const most = Math.max(...own);
  const uneven = (most * own.length) / sum(own);
  if (uneven >= UNEVEN) {
    return `uneven: rank ${ranks[own.indexOf(most)]?.rank} computes ${uneven.toFixed(1)} times the mean, and the others wait for it.`;
  }
  const shares = phaseNames
    .filter((name) => name !== "communication")
    .map((name) => ({ name, share: shareOf(({ phases }) => phases[name]) }))
    .sort((a, b) => b.share - a.share);
  const [first, second] = shares;
  const parts = [first, second].flatMap((each) => (each ? [`${each.name} takes ${percent(each.share)}`] : []));
  const peak = peakShare === null ? "" : `, at ${percent(peakShare)} of the peak`;
  return `compute-bound: ${parts.join(" of the time, ")}${peak}.`;
}

/** A mesh of as many workers with less of what it waits for: fewer ring steps, or fewer sums. */
export function otherMesh(plan: Plan, model: Model, ringWaits: boolean): string | undefined {
  const { cfg, cp, tp } = plan.mesh;
  const mesh = ringWaits ? { cfg, cp: cp / 2, tp: 2 * tp } : { cfg, cp: 2 * cp, tp: tp / 2 };
  if (!Number.isInteger(mesh.cp) || !Number.isInteger(mesh.tp)) return undefined;
  try {
    checkPlan({ ...plan, mesh }, model, traitsOf(model).tokens());
  } catch {
    return undefined;
  }
  return meshName(mesh);
}

/** How much the workers gain over one. */
export function speedupVerdict({ factor, efficiency, ideal, workers }: Speedup): string {
  if (workers === 1) return `the plan has one worker: measured twice, its times differ by ${threeDigits(factor)} ×.`;
  const verb = factor < 1 ? "are slower than one" : "are faster than one";
  const share =
    ideal < workers
      ? `${counted(ideal, "processor")} would allow ${ideal} ×`
      : `${percent(efficiency)} of the ideal ${ideal} ×`;
  return `${counted(workers, "worker")} ${verb}: ${threeDigits(factor)} ×, ${share}.`;
}

/** Both of a profile beside one worker: the gain, and what bounds it. */
export function baselineVerdict(gain: string, bound: string): string {
  return bound.startsWith("none") ? gain : `${gain.slice(0, -1)}; ${bound}`;
}

/** Whether the plans agree, and how closely. */
export function accuracyVerdict(
  results: readonly Pick<AccuracyResult, "plan" | "pass" | "measures" | "limits">[],
): string {
  const failed = results.filter(({ pass }) => !pass);
  if (failed.length > 0) {
    const plans = [...new Set(failed.map(({ plan }) => plan))].join(", ");
    return `${failed.length} of ${counted(results.length, "comparison")} failed: ${plans}.`;
  }
  const shares = results.map(({ plan, measures, limits }) => ({
    plan,
    share:
      measures === null
        ? 0
        : Math.max(...(["relL2", "region", "token"] as const).map((name) => measures[name] / limits[name])),
  }));
  const [closest] = shares.sort((a, b) => b.share - a.share);
  const whose =
    closest === undefined
      ? ""
      : results.length === 1
        ? `: ${percent(closest.share)} of the limit`
        : `; the nearest to its limit is ${closest.plan}, at ${percent(closest.share)}`;
  return `${results.length === 1 ? "passed" : `all ${results.length} comparisons passed`}${whose}.`;
}

/** Microseconds of 64 MiB between two H200 over NVLink (NV18), by transport: bench/results/2026-11-22-h200-third.md. */
const norms = {
  bytes: 64 * 2 ** 20,
  peer: { "all-reduce": 209, "ring shift": 189, halo: 233 },
  nccl: { "all-reduce": 247, "ring shift": 246, halo: 247 },
} as const;
/** Times a norm, from which a link is slower than it should be. */
const SLOW_LINK = 1.5;

/** What the links carry, beside what is normal where that has been measured. */
export function linksVerdict(device: string, workers: number, results: readonly LinkSummary[]): string {
  if (/\bH200\b/.test(device) && workers === 2) {
    const ratios = results.flatMap(({ transport, pattern, bytes, microseconds }) => {
      if (bytes !== norms.bytes || pattern === "NCCL all-reduce") return [];
      const usual = norms[transport][pattern];
      return [{ name: `${pattern} over ${transport}`, ratio: microseconds / usual, microseconds, usual }];
    });
    const [worst] = ratios.sort((a, b) => b.ratio - a.ratio);
    if (worst) {
      const { name, ratio, microseconds, usual } = worst;
      const times = `${figures(microseconds)} µs for 64 MiB, ${usual} between two H200 over NVLink`;
      return ratio >= SLOW_LINK
        ? `slow: ${name} takes ${ratio.toFixed(1)} times what is normal (${times}); nvidia-smi topo -m shows the links.`
        : `as fast as two H200 over NVLink; the furthest from it is ${name} (${times}).`;
    }
  }
  const fastest = results.toSorted((a, b) => b.gigabytesPerSecond - a.gigabytesPerSecond)[0];
  const quickest = results.toSorted((a, b) => a.microseconds - b.microseconds)[0];
  if (!fastest || !quickest) return "nothing was measured.";
  return `at most ${threeDigits(fastest.gigabytesPerSecond)} GB/s each way (${fastest.pattern} over ${fastest.transport}), and no exchange under ${threeDigits(quickest.microseconds)} µs; what is normal for these links has not been measured.`;
}

/** What took longest of a video, and what would shorten it. */
export function generateVerdict(
  summary: Pick<GenerateSummary, "stages" | "totalMs" | "sampling" | "worldSize" | "video" | "plan">,
): string {
  const { stages, totalMs, sampling, worldSize, video, plan } = summary;
  const { prepareMs, encodeMs, sampleMs, decodeMs, videoMs } = stages;
  const more = worldSize === 1 ? "more workers" : "more workers or another plan";
  const fp8 = plan.linear.dtype === "e4m3" ? "" : ", --fp8";
  const parts = [
    { what: "sampling", ms: sampleMs, help: `fewer --steps than ${sampling.steps}${fp8} or ${more} would help most` },
    { what: "decoding", ms: decodeMs, help: `fewer --frames, a smaller --size or ${more} would help most` },
    { what: "encoding the texts", ms: encodeMs, help: "several prompts in one load share the encoder's warm-up" },
    {
      what: "finishing the file",
      ms: videoMs,
      help: /ffmpeg|PNG/.test(video.encoder)
        ? "a faster disk or fewer frames would help"
        : "ffmpeg, if installed, is faster",
    },
  ].sort((a, b) => b.ms - a.ms);
  const [longest] = parts;
  if (!longest || totalMs === 0) return "nothing was measured.";
  if (prepareMs > totalMs) {
    return `getting ready took ${threeDigits(prepareMs / 1e3)} s, longer than the video itself (${threeDigits(totalMs / 1e3)} s): several prompts (--prompts) share it.`;
  }
  return `${longest.what} took ${percent(longest.ms / totalMs)} of the ${threeDigits(totalMs / 1e3)} s; ${longest.help}.`;
}
