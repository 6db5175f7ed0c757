import { z } from "zod";
import { checkDocument } from "../files/documents.js";
import { shown } from "../formats/shown.js";
import type { NamedText } from "../models/wan/text/texts.js";
import type { WanGenerateTask } from "../protocol/job.js";
import { parseMessage } from "../protocol/messages.js";
import { wanGenerateRankSchema, wanProgressSchema } from "../protocol/results.js";
import { counted } from "../text.js";
import { freeName, openVideo } from "../video/open-video.js";
import type { VideoFormat, VideoMetadata, VideoWriter } from "../video/video-writer.js";
import { type GenerateSummary, generateTable, summarizeGenerate } from "../views/generate-report.js";
import { VideoProgress } from "../views/video-progress.js";
import { endOnInterrupt } from "./interrupts.js";
import type { Session } from "./session.js";

/** Where a video goes. */
export interface Target extends VideoFormat {
  readonly out: string;
  readonly overwrite: boolean;
  readonly frames: number;
  /** What the video tells of itself. */
  readonly metadata?: VideoMetadata;
}

/** One video to be made. */
export interface Wanted {
  readonly prompt: NamedText;
  readonly task: WanGenerateTask;
  readonly target: Target;
}

/**
 * Makes one video after the other on the same workers, all of one plan, and tells of each; where one fails, those before it stay.
 * The JSON document is the summary of a single one, else `videos` with all of them.
 * @param weights where they come from, in words. @throws DitrunError as Session.run and openVideo do.
 */
export async function makeVideos(session: Session, wanted: readonly Wanted[], weights: string): Promise<void> {
  const [first] = wanted;
  if (!first) throw new RangeError("There is no video to make.");
  // Opened first: a target that cannot be written is known before anything is computed.
  let open: VideoWriter | undefined = await openTarget(session, first.target);
  const abort = async () => open?.abort();
  const stopListening = endOnInterrupt(abort);
  session.log.logger.info(`${first.task.model.name}: ${weights}.`);
  try {
    if (wanted.length === 1) {
      const results = (onEmit: OnEmit) => session.run(first.task, onEmit);
      await session.emit(await makeVideo({ session, weights, results, video: open }, first));
      return;
    }
    const videos: (GenerateSummary & { prompt: string })[] = [];
    const { logger } = session.log;
    const what = { kind: first.task.kind, subject: `${first.task.model.name}, ${counted(wanted.length, "video")}` };
    await session.withWorkers(first.task.plan, what, async (workers, signal) => {
      for (const [index, each] of wanted.entries()) {
        const title = `Video ${index + 1} of ${wanted.length}, ${each.prompt.name}: ${shown(each.prompt.text)}`;
        logger.info(title);
        open ??= await openTarget(session, each.target);
        const results = (onEmit: OnEmit) => workers.run(each.task, { onEmit });
        const run = { session, weights, results, video: open, signal, title, again: index > 0 };
        const summary = await makeVideo(run, each).catch((error: unknown) => {
          if (index > 0) logger.warn(`Video ${index + 1} of ${wanted.length} was not finished; ${kept(index)} kept.`);
          throw error;
        });
        videos.push({ prompt: each.prompt.text, ...summary });
        open = undefined;
      }
    });
    await session.emit({ videos });
  } catch (error) {
    await abort();
    throw error;
  } finally {
    stopListening();
  }
}

const kept = (videos: number) => (videos === 1 ? "the one before it is" : `the ${videos} before it are`);

async function openTarget({ log: { logger } }: Session, target: Target): Promise<VideoWriter> {
  const { out, overwrite, metadata } = target;
  const warn = (sentence: string) => logger.warn(sentence);
  const video = await openVideo(out, target, "ffmpeg", { overwrite, warn, metadata });
  const name = await freeName(target);
  if (name !== out) logger.info(`${out} is there already: the video will be ${name}.`);
  return video;
}

type OnEmit = (rank: number, name: string, value: Uint8Array) => Promise<void>;

interface Run {
  readonly session: Session;
  readonly weights: string;
  /** Runs the task. @returns its results by rank. */
  readonly results: (onEmit: OnEmit) => Promise<unknown[]>;
  readonly video: VideoWriter;
  /** Ends the encoder, where nothing else hears the user meanwhile. */
  readonly signal?: AbortSignal;
  /** Stands above the table. */
  readonly title?: string;
  /** The workers have made another video before. */
  readonly again?: boolean;
}

async function makeVideo(
  { session, weights, results, video, signal, title, again }: Run,
  { task, target }: Wanted,
): Promise<GenerateSummary> {
  const { log } = session;
  const { stderr } = process;
  const visible = stderr.isTTY && ["info", "debug"].includes(log.level);
  const info = (line: string) => log.logger.info(line);
  const progress = new VideoProgress({ info, terminal: visible ? stderr : undefined }, target.frames, again);
  let sampled = performance.now();
  let decoded = sampled;
  const ended = await results(async (_rank, name, value) => {
    if (name === "frame") {
      await video.write(value);
      progress.frame();
    } else if (name === "progress") {
      const report = parseMessage(wanProgressSchema, value);
      if (report.stage === "sample") sampled = performance.now();
      // This report comes behind the last frame, which may have waited for the encoder.
      if (report.stage === "decode") decoded = sampled + report.milliseconds;
      progress.report(report);
    }
  }).catch((error: unknown) => {
    progress.clear();
    throw error;
  });
  const { overwrite, metadata, ...format } = target;
  const written = { ...format, out: await unlessAborted(video.finish(), signal) };
  progress.clear();
  const finishMs = performance.now() - decoded;
  const ranks = checkDocument("The workers' results", ended, z.array(wanGenerateRankSchema), "ERR_INTERNAL");
  const summary = summarizeGenerate(task, ranks, { ...written, encoder: video.encoder, finishMs }, weights);
  session.print(`${title === undefined ? "" : `${title}\n`}${generateTable(summary)}`);
  return summary;
}

/** @throws the signal's reason, as soon as it is aborted. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop);
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
