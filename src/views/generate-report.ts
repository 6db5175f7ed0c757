import { planTitle } from "../plan/resolve.js";
import { vaeDtype } from "../plan/schema.js";
import type { WanGenerateTask } from "../protocol/job.js";
import type { WanGenerateRank } from "../protocol/results.js";
import { counted } from "../text.js";
import { figures } from "./profile-report.js";
import { type Latency, latencyOf, percentile } from "./statistics.js";
import { formatTable } from "./table.js";

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
  /** All stages but preparing. */
  totalMs: number;
  /** One forward of the transformer, or both texts' at the same time; the slowest rank of each. */
  forwardMs: Latency;
  forwardsAtOnce: number;
  /** Median. */
  secondsPerStep: number;
  /** Of the ranks that compute one forward together. */
  forwardTflops: number;
  peakMemoryBytes: number;
  weights: string;
  model: WanGenerateTask["model"];
  plan: WanGenerateTask["plan"];
  sampling: WanGenerateTask["sampling"];
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
  ranks: readonly WanGenerateRank[],
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
  return {
    stages,
    totalMs: stages.encodeMs + stages.sampleMs + stages.decodeMs + stages.videoMs,
    forwardMs,
    secondsPerStep:
      percentile(
        ofAll(({ stepsMs }) => stepsMs),
        0.5,
      ) / 1e3,
    forwardsAtOnce: first.forwardsAtOnce,
    forwardTflops: (first.forwardsAtOnce * first.forwardFlops) / (forwardMs.median * 1e9),
    peakMemoryBytes: Math.max(...ranks.map((rank) => rank.peakMemoryBytes)),
    weights,
    model: task.model,
    plan: task.plan,
    sampling: task.sampling,
    seed: task.seed,
    noise: task.noise ? `${task.noise.file}:${task.noise.tensor}` : (task.generator ?? "ditrun"),
    video,
    device: first.device,
    worldSize: ranks.length,
    ranks: [...ranks],
  };
}

/** Stage times as a table, and where the video is. */
export function generateTable(summary: GenerateSummary): string {
  const { model, plan, worldSize, device, weights, video, stages, sampling, forwardMs } = summary;
  const workers = counted(worldSize, "worker");
  const seconds = (milliseconds: number) => figures(milliseconds / 1e3);
  const rows = [
    ["prepare: rehearse, load, warm up", seconds(stages.prepareMs), ""],
    ["encode the texts", seconds(stages.encodeMs), ""],
    [
      `sample, ${counted(sampling.steps, "step")}`,
      seconds(stages.sampleMs),
      `${figures(summary.secondsPerStep)} s/step`,
    ],
    [
      `decode, ${counted(video.frames, "frame")}`,
      seconds(stages.decodeMs),
      `${figures((1e3 * video.frames) / stages.decodeMs)} frames/s`,
    ],
    ["finish the file", seconds(stages.videoMs), ""],
    ["all but preparing", seconds(summary.totalMs), ""],
  ];
  const memory = `${(summary.peakMemoryBytes / 2 ** 30).toFixed(2)} GiB of device memory at most`;
  const short = summary.ranks.some(({ memory: { encoderFirst } }) => encoderFirst);
  return [
    `${model.name} with ${weights}, ${planTitle(plan)}, VAE in ${vaeDtype(plan)}, ${workers}, ${device}`,
    `seed ${summary.seed}, noise: ${summary.noise}`,
    formatTable(["stage", "seconds", "speed"], rows),
    `${summary.forwardsAtOnce === 1 ? "A forward" : "Both texts' forwards"}: ${figures(forwardMs.median)} ms, ${figures(summary.forwardTflops)} TFLOP/s. A worker: ${memory}${short ? ", the text encoder first and alone" : ""}.`,
    `${video.out}: ${counted(video.frames, "frame")} of ${video.width} × ${video.height}, ${video.fps} a second, by ${video.encoder}`,
  ].join("\n");
}
