import { traitsOf } from "../../models/registry.js";
import { planTitle } from "../../plan/names.js";
import type { ProfileRank } from "../../protocol/results.js";
import { bytesInWords, counted } from "../../text.js";
import { figures, threeDigits } from "../figures.js";
import type { ProfileSummary, Speedup } from "../profile-report.js";
import { otherMesh } from "../verdict.js";
import { bars } from "./bars.js";
import { environmentSection, type Made, madeBy } from "./facts.js";
import { arenaPart, findingsSection, rooflineSection, timeSection } from "./forward.js";
import { fullest, memoryBars } from "./memory.js";
import { reportPage, section } from "./page.js";
import { timelineSection } from "./timeline.js";

/** What a planner said before, where one did. */
export interface Predicted {
  readonly milliseconds: number;
  readonly memoryBytes?: number;
}

export interface ProfileReport {
  readonly summary: ProfileSummary;
  /** With their traces. */
  readonly ranks: readonly ProfileRank[];
  readonly verdict: string;
  readonly made: Made;
  readonly speedup?: Speedup | undefined;
  readonly predicted?: Predicted | undefined;
}

/** The report of a profile, as one HTML document. */
export function profilePage({ summary, ranks, verdict, made, speedup, predicted }: ProfileReport): string {
  const { model, plan, worldSize, processors, latencyMs, recordedMs, device } = summary;
  const [first] = ranks;
  if (!first) throw new RangeError("A report needs a rank.");
  const { section: timeline, scripts } = timelineSection(ranks);
  const full = fullest(ranks) ?? first;
  const title = `${model.name}, ${planTitle(plan)}, ${counted(worldSize, "worker")}, ${device}`;
  const timeNote = `One forward, each kernel launched by itself with a clock around it: ${figures(recordedMs)} ms on the slowest rank. Those that were timed take ${figures(latencyMs.median)} ms.`;
  const facts = {
    ranks,
    plan,
    workers: worldSize,
    processors,
    latencyMs,
    otherMesh: (ring: boolean) => otherMesh(plan, model, ring),
  };
  const memory = section(
    "memory",
    "Memory over time",
    `What rank ${full.rank} held on its device, which is the most of all ranks.`,
    memoryBars(full.memory),
    ...[arenaPart(full)].flatMap((chart) => chart ?? []),
  );
  return reportPage({
    command: "profile",
    ...{ title, verdict, scripts, made: madeBy(made) },
    headlines: [
      {
        name: "a forward",
        value: `${figures(latencyMs.median)} ms`,
        note: `${figures(latencyMs.p10)} to ${figures(latencyMs.p90)}`,
      },
      { name: `${traitsOf(model).makes} a second`, value: figures(summary.throughput) },
      {
        name: "TFLOP/s",
        value: figures(summary.tflops),
        ...(summary.peakShare !== null && { note: `${threeDigits(100 * summary.peakShare)} % of the peak` }),
      },
      { name: "memory of a worker", value: bytesInWords(Math.max(...ranks.map((rank) => rank.peakMemoryBytes))) },
      ...(speedup
        ? [{ name: "beside one worker", value: `${threeDigits(speedup.factor)} ×`, note: `of ${speedup.ideal} ×` }]
        : []),
    ],
    sections: [
      timeSection(ranks, timeNote),
      findingsSection(facts),
      timeline,
      rooflineSection(first.kernels, { tflops: first.peakTflops, gigabytesPerSecond: first.peakGBs }, first.rank),
      memory,
      predicted && predictionSection(predicted, summary),
      environmentSection(made, [
        ["device", `${summary.deviceCount} × ${device}`],
        ["plan", planTitle(plan)],
        ["measured", `${counted(summary.iterations, "forward")} after ${summary.warmup} to warm up`],
      ]),
    ],
  });
}

/** What was expected, and what came. */
function predictionSection({ milliseconds, memoryBytes }: Predicted, { latencyMs: measured, ranks }: ProfileSummary) {
  const held = Math.max(...ranks.map(({ peakMemoryBytes }) => peakMemoryBytes));
  const part = (value: number) => [{ kind: "plain", name: "ms", value }];
  const off = (100 * (measured.median - milliseconds)) / milliseconds;
  return section(
    "predicted",
    "Predicted and measured",
    `The forward takes ${threeDigits(Math.abs(off))} % ${off < 0 ? "less" : "more"} than was predicted${
      memoryBytes === undefined ? "" : `; its memory is ${bytesInWords(held)}, predicted ${bytesInWords(memoryBytes)}`
    }.`,
    bars(
      [
        { name: "predicted", parts: part(milliseconds) },
        { name: "measured", parts: part(measured.median) },
      ],
      { unit: "ms" },
    ),
  );
}
