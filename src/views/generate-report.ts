import { basename } from "node:path";
import { planTitle } from "../plan/names.js";
import { vaeDtype } from "../plan/schema.js";
import type { WanGenerateTask } from "../protocol/job.js";
import type { WanGenerateRank, WanGenerateResult } from "../protocol/results.js";
import { counted } from "../text.js";
import { byteSize, figures } from "./figures.js";
import { type Page, paint, prose } from "./page.js";
import { type Latency, latencyOf, percentile, sum } from "./statistics.js";
import { type Column, formatTable } from "./table.js";

export interface VideoOutput {
  readonly out: string;
  readonly encoder: string;
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  readonly fps: number;
  /** From the last frame's decoding to the finished file. */
  readonly finishMs: number;
}

export interface GenerateSummary {
  /** Wall time of each stage; the slowest rank's. */
  stages: WanGenerateRank["stages"] & { readonly videoMs: number };
  /** Of preparing: the loading of weights alone, and what they take on the device; the slowest rank's, all ranks' together. */
  load: WanGenerateRank["load"];
  /** All stages but preparing. */
  totalMs: number;
  /** One forward of the transformer, or both texts' at the same time; the slowest rank of each. */
  forwardMs: Latency;
  forwardsAtOnce: number;
  /** Median. */
  secondsPerStep: number;
  /** Of sampling: putting the second of two transformers in the place of the first; the slowest rank's. */
  switchMs: number;
  /** Of the ranks that compute one forward together. */
  forwardTflops: number;
  peakMemoryBytes: number;
  weights: string;
  model: WanGenerateTask["model"];
  plan: WanGenerateTask["plan"];
  sampling: WanGenerateTask["sampling"];
  loras: NonNullable<WanGenerateTask["loras"]>;
  /** Of the second of two transformers. */
  loras2: NonNullable<WanGenerateTask["loras"]>;
  /** Beyond 2^53: decimal text. */
  seed: WanGenerateTask["seed"];
  /** Whose random numbers the seed stands for, or the file of the noise. */
  noise: string;
  video: Omit<VideoOutput, "finishMs">;
  device: string;
  worldSize: number;
  ranks: WanGenerateRank[];
}

/** Sums up a generation. */
export function summarizeGenerate(
  task: WanGenerateTask,
  ranks: readonly WanGenerateResult[],
  { finishMs, ...video }: VideoOutput,
  weights: string,
): GenerateSummary {
  const [first] = ranks;
  if (!first) throw new RangeError("A generation needs at least one rank.");
  const slowest = (stage: keyof WanGenerateRank["stages"]) => Math.max(...ranks.map(({ stages }) => stages[stage]));
  const stages = {
    ...{ prepareMs: slowest("prepareMs"), encodeMs: slowest("encodeMs") },
    ...{ sampleMs: slowest("sampleMs"), decodeMs: slowest("decodeMs"), videoMs: finishMs },
  };
  const ofAll = (times: (rank: WanGenerateRank) => readonly number[]) =>
    times(first).map((_, index) => Math.max(...ranks.map((rank) => times(rank)[index] ?? 0)));
  const forwardMs = latencyOf(ofAll(({ forwardsMs }) => forwardsMs));
  const load = {
    milliseconds: Math.max(...ranks.map((rank) => rank.load.milliseconds)),
    bytes: sum(ranks.map((rank) => rank.load.bytes)),
  };
  return {
    stages,
    load,
    totalMs: stages.encodeMs + stages.sampleMs + stages.decodeMs + stages.videoMs,
    forwardMs,
    secondsPerStep:
      percentile(
        ofAll(({ stepsMs }) => stepsMs),
        0.5,
      ) / 1e3,
    switchMs: Math.max(...ranks.map((rank) => rank.switchMs)),
    forwardsAtOnce: first.forwardsAtOnce,
    forwardTflops: (first.forwardsAtOnce * first.forwardFlops) / (forwardMs.median * 1e9),
    peakMemoryBytes: Math.max(...ranks.map((rank) => rank.peakMemoryBytes)),
    weights,
    model: task.model,
    plan: task.plan,
    sampling: task.sampling,
    loras: task.loras ?? [],
    loras2: task.loras2 ?? [],
    seed: task.seed,
    noise: task.noise ? `${task.noise.file}:${task.noise.tensor}` : (task.generator ?? "ditrun"),
    video,
    device: first.device,
    worldSize: ranks.length,
    ranks: ranks.map(({ recording: _, ...rank }) => rank),
  };
}

interface StageRow {
  readonly stage: string;
  readonly milliseconds: number;
  /** What was done, in its own unit: `50 steps`. */
  readonly amount?: string;
  readonly rate?: string;
  /** A part of the stage above, or the sum: no share of its own. */
  readonly part?: boolean;
}

/** Stage times as a table, and where the video is. */
export function generateTable(page: Page, summary: GenerateSummary): string {
  const { model, plan, worldSize, device, weights, video, stages, load, sampling, forwardMs } = summary;
  const loras = [...summary.loras, ...summary.loras2].map(({ file, strength }) => `${basename(file)} × ${strength}`);
  const seconds = (milliseconds: number) => figures(milliseconds / 1e3);
  const rows: StageRow[] = [
    {
      stage: "load the weights",
      milliseconds: load.milliseconds,
      part: true,
      ...(load.bytes > 0 && {
        amount: byteSize(load.bytes),
        rate: `${byteSize((1e3 * load.bytes) / load.milliseconds)}/s`,
      }),
    },
    { stage: "plan memory, warm up", milliseconds: Math.max(0, stages.prepareMs - load.milliseconds), part: true },
    { stage: "encode the texts", milliseconds: stages.encodeMs },
    {
      stage: "sample",
      milliseconds: stages.sampleMs,
      amount: counted(sampling.steps, "step"),
      rate: `${figures(summary.secondsPerStep)} s/step`,
    },
    ...(summary.switchMs > 0 ? [{ stage: "change of transformers", milliseconds: summary.switchMs, part: true }] : []),
    {
      stage: "decode",
      milliseconds: stages.decodeMs,
      amount: counted(video.frames, "frame"),
      rate: `${figures((1e3 * video.frames) / stages.decodeMs)} frames/s`,
    },
    { stage: "finish the file", milliseconds: stages.videoMs },
    { stage: "from the texts to the file", milliseconds: summary.totalMs, part: true },
  ];
  const columns: Column<StageRow>[] = [
    { head: "stage", align: "left", cell: ({ stage }) => stage },
    { head: "seconds", cell: ({ milliseconds }) => seconds(milliseconds) },
    {
      head: "share",
      drop: 1,
      cell: ({ milliseconds, part }) => (part ? "" : `${((100 * milliseconds) / summary.totalMs).toFixed(0)} %`),
    },
    { head: "amount", cell: ({ amount = "" }) => amount },
    { head: "rate", cell: ({ rate = "" }) => rate },
  ];
  const short = summary.ranks.some(({ memory: { encoderFirst } }) => encoderFirst);
  const memory = `${(summary.peakMemoryBytes / 2 ** 30).toFixed(2)} GiB of device memory at most${short ? ", the text encoder first and alone" : ""}`;
  return [
    paint(
      page,
      "bold",
      prose(
        page,
        `${model.name}, ${planTitle(plan)}, VAE in ${vaeDtype(plan)}, ${counted(worldSize, "worker")}, ${device}`,
      ),
    ),
    prose(page, `weights: ${[weights, ...loras].join(" + ")}; seed ${summary.seed}, noise: ${summary.noise}`),
    formatTable(page, columns, rows),
    prose(
      page,
      `${summary.forwardsAtOnce === 1 ? "A forward" : "Both texts' forwards"}: ${figures(forwardMs.median)} ms, ${figures(summary.forwardTflops)} TFLOP/s. A worker: ${memory}.`,
    ),
    prose(
      page,
      `${video.out}: ${counted(video.frames, "frame")} of ${video.width} × ${video.height}, ${video.fps} a second, by ${video.encoder}`,
    ),
  ].join("\n");
}
