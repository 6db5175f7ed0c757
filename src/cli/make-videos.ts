import { availableParallelism } from "node:os";
import { z } from "zod";
import type { EmitHandler } from "../engine/workers.js";
import { checkDocument } from "../files/documents.js";
import { shown } from "../formats/shown.js";
import type { NamedText } from "../models/wan/text/texts.js";
import { planTitle } from "../plan/names.js";
import type { WanGenerateTask } from "../protocol/job.js";
import { parseMessage } from "../protocol/messages.js";
import { progressSchema, wanGenerateResultSchema } from "../protocol/results.js";
import { counted } from "../text.js";
import { freeName, openVideo } from "../video/open-video.js";
import type { VideoFormat, VideoMetadata, VideoWriter } from "../video/video-writer.js";
import { type GenerateSummary, generateTable, summarizeGenerate } from "../views/generate-report.js";
import { generatePage } from "../views/html/generate-page.js";
import { generateVerdict } from "../views/verdict.js";
import { endOnInterrupt } from "./interrupts.js";
import { writeReport, writeTrace } from "./reports.js";
import type { Session } from "./session.js";
import { showProgress } from "./show-progress.js";

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
  readonly negativePrompt: string;
  readonly task: WanGenerateTask;
  readonly target: Target;
  readonly html?: string | undefined;
  readonly trace?: string | undefined;
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
      const results = (onEmit: EmitHandler) => session.run(first.task, onEmit);
      const summary = await makeVideo({ session, weights, results, video: open }, first);
      await session.emit({ ...summary, ...textsOf(first), deviceName: summary.device });
      return;
    }
    const videos: (GenerateSummary & { prompt: string; verdict: string })[] = [];
    const { logger } = session.log;
    const what = { kind: first.task.kind, subject: `${first.task.model.name}, ${counted(wanted.length, "video")}` };
    await session.withWorkers(first.task.plan, what, async (workers, signal) => {
      for (const [index, each] of wanted.entries()) {
        const title = `Video ${index + 1} of ${wanted.length}, ${each.prompt.name}: ${shown(each.prompt.text)}`;
        logger.info(title);
        open ??= await openTarget(session, each.target);
        const results = (onEmit: EmitHandler) => workers.run(each.task, { onEmit });
        const run = { session, weights, results, video: open, signal, title, again: index > 0 };
        const summary = await makeVideo(run, each).catch((error: unknown) => {
          if (index > 0) logger.warn(`Video ${index + 1} of ${wanted.length} was not finished; ${kept(index)} kept.`);
          throw error;
        });
        videos.push({ prompt: each.prompt.text, ...summary });
        open = undefined;
      }
    });
    const { model, plan } = first.task;
    const { negativePrompt } = first;
    await session.emit({ model, plan, negativePrompt, deviceName: videos[0]?.device ?? null, videos });
  } catch (error) {
    await abort();
    throw error;
  } finally {
    stopListening();
  }
}

const textsOf = ({ prompt, negativePrompt }: Wanted) => ({ prompt: prompt.text, negativePrompt });

const kept = (videos: number) => (videos === 1 ? "the one before it is" : `the ${videos} before it are`);

async function openTarget({ log: { logger } }: Session, target: Target): Promise<VideoWriter> {
  const { out, overwrite, metadata } = target;
  const warn = (sentence: string) => logger.warn(sentence);
  const video = await openVideo(out, target, "ffmpeg", { overwrite, warn, metadata });
  const name = await freeName(target);
  if (name !== out) logger.info(`${out} is there already: the video will be ${name}.`);
  return video;
}

interface Run {
  readonly session: Session;
  readonly weights: string;
  /** Runs the task. @returns its results by rank. */
  readonly results: (onEmit: EmitHandler) => Promise<unknown[]>;
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
  { task, target, trace, html, prompt, negativePrompt }: Wanted,
): Promise<GenerateSummary & { verdict: string }> {
  let sampled = performance.now();
  let decoded = sampled;
  const { overwrite, metadata, ...format } = target;
  const shape = { frames: target.frames, again: again ?? false };
  const { ended, written } = await showProgress(session, shape, async (_, progress) => {
    const ended = await results(async (_rank, name, value) => {
      if (name === "frame") {
        await video.write(value);
        progress.frame();
      } else if (name === "progress") {
        const report = parseMessage(progressSchema, value);
        if (report.stage === "sample") sampled = performance.now();
        // This report comes behind the last frame, which may have waited for the encoder.
        if (report.stage === "decode") decoded = sampled + report.milliseconds;
        progress.report(report);
      }
    });
    return { ended, written: { ...format, out: await unlessAborted(video.finish(), signal) } };
  });
  const finishMs = performance.now() - decoded;
  session.events.tell({ event: "video", out: written.out, frames: target.frames });
  const ranks = checkDocument("The workers' results", ended, z.array(wanGenerateResultSchema), "ERR_INTERNAL");
  const summary = summarizeGenerate(task, ranks, { ...written, encoder: video.encoder, finishMs }, weights);
  session.print(`${title === undefined ? "" : `${title}\n`}${generateTable(session.page, summary)}\n`);
  const recorded = ranks.flatMap(({ rank, device, recording }) => (recording ? [{ ...recording, rank, device }] : []));
  if (trace !== undefined) await writeTrace(session, trace, `${task.model.name}, ${planTitle(task.plan)}`, recorded);
  const verdict = generateVerdict(summary);
  session.printVerdict(verdict);
  if (html !== undefined) {
    const { device } = session.device;
    const processors = device === "cuda" ? session.devices : availableParallelism();
    const report = { summary, ranks, verdict, processors, prompt: prompt.text, negativePrompt };
    await writeReport(session, html, (made) => generatePage({ ...report, made }));
  }
  return { ...summary, verdict };
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
