import { planTitle } from "../../plan/names.js";
import type { WanGenerateResult } from "../../protocol/results.js";
import { bytesInWords, counted } from "../../text.js";
import { figures } from "../figures.js";
import type { GenerateSummary } from "../generate-report.js";
import { otherMesh } from "../verdict.js";
import { bars } from "./bars.js";
import { environmentSection, type Made, madeBy } from "./facts.js";
import { arenaPart, findingsSection, rooflineSection, timeSection } from "./forward.js";
import type { Markup } from "./markup.js";
import { fullest, memoryBars } from "./memory.js";
import { folded, reportPage, section, table } from "./page.js";
import { timelineSection } from "./timeline.js";

export interface GenerateReport {
  readonly summary: GenerateSummary;
  /** With their recordings. */
  readonly ranks: readonly WanGenerateResult[];
  readonly prompt: string;
  readonly negativePrompt: string;
  readonly verdict: string;
  readonly made: Made;
  /** GPUs or cores that the workers run on. */
  readonly processors: number;
}

/** The report of a video, as one HTML document. */
export function generatePage(report: GenerateReport): string {
  const { summary, verdict, made, processors, prompt, negativePrompt } = report;
  const ranks = report.ranks.flatMap(({ recording, rank, device }) =>
    recording ? [{ ...recording, rank, device }] : [],
  );
  const [first] = ranks;
  const full = fullest(ranks);
  if (!first || !full) throw new RangeError("A report needs a rank that was recorded.");
  const { model, plan, video, worldSize, device, sampling } = summary;
  const { section: timeline, scripts } = timelineSection(ranks, `step ${first.step}`);
  const facts = {
    ranks,
    plan,
    workers: worldSize,
    processors,
    otherMesh: (ring: boolean) => otherMesh(plan, model, ring),
  };
  const note = `The forwards of step ${first.step}, each kernel launched by itself with a clock around it.`;
  return reportPage({
    command: "wan generate",
    title: `${model.name}, ${planTitle(plan)}, ${counted(worldSize, "worker")}, ${device}`,
    ...{ verdict, scripts, made: madeBy(made) },
    headlines: [
      { name: "from texts to file", value: `${figures(summary.totalMs / 1e3)} s` },
      { name: "a step", value: `${figures(summary.secondsPerStep)} s`, note: `of ${sampling.steps}` },
      { name: "TFLOP/s", value: figures(summary.forwardTflops) },
      { name: "memory of a worker", value: bytesInWords(summary.peakMemoryBytes) },
      {
        name: "video",
        value: `${video.width} × ${video.height}`,
        note: `${video.frames} frames, ${video.fps} a second`,
      },
    ],
    sections: [
      stagesSection(summary),
      timeSection(ranks, note),
      findingsSection(facts),
      timeline,
      rooflineSection(first.kernels, { tflops: first.peakTflops, gigabytesPerSecond: first.peakGBs }, first.rank),
      section(
        "memory",
        "Memory over time",
        `What rank ${full.rank} held on its device, which is the most of all ranks.`,
        memoryBars(full.memory),
        ...[arenaPart(full)].flatMap((chart) => chart ?? []),
      ),
      environmentSection(made, [
        ["prompt", prompt],
        ["negative prompt", negativePrompt],
        ["weights", summary.weights],
        ["seed", `${summary.seed}, noise: ${summary.noise}`],
        ["sampling", `${sampling.solver}, ${counted(sampling.steps, "step")}, guidance ${sampling.guideScale}`],
        ["plan", planTitle(plan)],
        ["device", device],
        ["file", `${video.out}, by ${video.encoder}`],
      ]),
    ],
  });
}

const stageNames = {
  prepareMs: "get ready",
  encodeMs: "encode the texts",
  sampleMs: "sample",
  decodeMs: "decode",
  videoMs: "finish the file",
} as const;

function stagesSection({ stages, ranks }: GenerateSummary): Markup {
  const names = Object.entries(stageNames) as [keyof typeof stageNames, string][];
  const rows = names.map(([stage, name]) => ({
    name,
    parts: [{ kind: "plain", name, value: stages[stage] / 1e3 }],
  }));
  const steps = ranks[0]?.stepsMs ?? [];
  const slowest = steps.map((_, step) => Math.max(...ranks.map(({ stepsMs }) => stepsMs[step] ?? 0)));
  return section(
    "stages",
    "From the texts to the file",
    "Wall time of each stage; the slowest rank's.",
    bars(rows, { unit: "s" }),
    folded(
      "Every step",
      table(
        ["step", "seconds"],
        slowest.map((ms, step) => [String(step + 1), figures(ms / 1e3)]),
      ),
    ),
  );
}
