import { rm } from "node:fs/promises";
import type { Engine, EngineEvent, VideoResult } from "../engine/engine.js";
import type { VideoRequest } from "../engine/requests.js";
import { DitrunError } from "../failure.js";
import { meshName, type Plan } from "../plan/schema.js";
import { inComment, metadataOf } from "../video/metadata.js";
import { openVideo } from "../video/open-video.js";
import type { VideoMetadata } from "../video/video-writer.js";
import { Pictures } from "./pictures.js";
import type { VideoRecord, VideoSettings } from "./records.js";

/** Files of LoRAs, by the names that clients know. */
export type Loras = ReadonlyMap<string, string>;

export interface MakeOptions {
  /** The files to be written. */
  readonly files: { readonly video: string; readonly thumbnail: string; readonly spritesheet: string };
  readonly model: string;
  /** Files of LoRAs, by name. */
  readonly loras: Loras;
  readonly signal: AbortSignal;
  readonly deadlineMs: number | undefined;
  warn(sentence: string): void;
  /** Asked for each step that begins. */
  wantsPreview(): boolean;
  onEvent(event: EngineEvent): void;
}

/** What a video cost. */
export interface Made {
  readonly measured: NonNullable<VideoRecord["measured"]>;
  /** Bytes, by rank. */
  readonly peakMemory: readonly number[];
}

/**
 * Makes a video, and writes it and its pictures. No file is left where that fails.
 * @returns what was measured. @throws DitrunError as Engine.run and openVideo do.
 */
export async function makeVideo(
  engine: Engine,
  { settings, sampling }: Pick<VideoRecord, "settings" | "sampling">,
  { files, model, loras, signal, deadlineMs, warn, wantsPreview, onEvent }: MakeOptions,
): Promise<Made> {
  const { width, height, frames, fps } = settings;
  const metadata = videoMetadata({ ...settings, ...sampling }, model, engine.plan);
  const target = { overwrite: true, warn, metadata, elsewhere: false };
  const started = performance.now();
  // An encoder starts as long as the first steps take; one that cannot start ends the run.
  const pictures = new Pictures(frames);
  const opening = openVideo(files.video, { width, height, fps, frames }, "ffmpeg", target);
  const broken = new AbortController();
  opening.catch((error: unknown) => broken.abort(error));
  try {
    const result = await engine.run(requestOf(settings, loras), {
      ...{ signal: AbortSignal.any([signal, broken.signal]), deadlineMs, wantsPreview },
      onEvent: async (event) => {
        if (event.kind === "frame") {
          pictures.add(event.index, event);
          await (await opening).write(event.pixels);
        }
        if (event.kind === "warning") warn(event.message);
        onEvent(event);
      },
    });
    await (await opening).finish();
    await pictures.write(files);
    return madeOf(result, (performance.now() - started) / 1000);
  } catch (error) {
    await opening.then((video) => video.abort()).catch(() => undefined);
    for (const file of Object.values(files)) await rm(file, { force: true });
    throw error;
  }
}

/** Makes the programs and graphs of a size, so that the first request of it does not wait for them. */
export async function warmUp(
  engine: Engine,
  size: Pick<VideoSettings, "width" | "height" | "frames">,
  signal: AbortSignal,
): Promise<void> {
  const prompt = "-";
  // A distilled model has as many steps as noise levels.
  const steps = engine.samplingOf({ prompt }).sigmas ? undefined : 2;
  // A preview too: the colours of the first one are fitted.
  await engine.run({ ...size, prompt, steps }, { signal, wantsPreview: () => true });
}

/** What an engine is asked for. @throws DitrunError where a LoRA is not there any more. */
function requestOf(settings: VideoSettings, files: Loras): VideoRequest {
  const { prompt, negativePrompt, width, height, frames, steps, guideScale, guideScale2, shift, seed } = settings;
  const filesOf = (loras: VideoSettings["loras"]) =>
    loras?.map(({ name, strength }) => {
      const file = files.get(name);
      if (file !== undefined) return { file, strength };
      throw new DitrunError("ERR_FILE_READ", `The LoRA "${name}" is not there any more.`);
    });
  const both =
    guideScale !== undefined && guideScale2 !== undefined ? ([guideScale2, guideScale] as const) : guideScale;
  const sampling = { steps, guideScale: both, shift };
  const loras = { loras: filesOf(settings.loras), loras2: filesOf(settings.loras2) };
  return { prompt, negativePrompt, width, height, frames, ...sampling, seed: BigInt(seed), ...loras };
}

/** How the engine will sample the video. */
export function samplingOf(engine: Engine, { settings }: VideoRecord, loras: Loras): VideoRecord["sampling"] {
  try {
    const { steps, guideScale, low, shift } = engine.samplingOf(requestOf(settings, loras));
    return { steps, guideScale, shift, ...(low && { guideScale2: low.guideScale }) };
  } catch {
    // There is no such schedule: the run says why.
    return undefined;
  }
}

function madeOf({ ranks }: VideoResult, inferenceSeconds: number): Made {
  const [first] = ranks;
  if (!first) throw new DitrunError("ERR_INTERNAL", "No rank has measured the video.");
  const { prepareMs, encodeMs, sampleMs, decodeMs } = first.stages;
  const stageMs = { prepare: prepareMs, encode: encodeMs, sample: sampleMs, decode: decodeMs };
  const stageSeconds = Object.fromEntries(Object.entries(stageMs).map(([stage, ms]) => [stage, ms / 1000]));
  const peakMemory = ranks.map(({ peakMemoryBytes }) => peakMemoryBytes);
  return { measured: { inferenceSeconds, peakMemoryBytes: Math.max(...peakMemory), stageSeconds }, peakMemory };
}

/** What the file tells of how it was made; the comment has the names of the command line's options. */
function videoMetadata(settings: VideoSettings, model: string, plan: Plan): VideoMetadata {
  const { prompt, negativePrompt, width, height, frames, fps, steps, guideScale, shift, seed, loras } = settings;
  const { guideScale2, loras2 } = settings;
  return metadataOf(prompt, {
    prompt: inComment(prompt),
    ...(negativePrompt === undefined ? {} : { negativePrompt: inComment(negativePrompt) }),
    ...(loras === undefined ? {} : { loras }),
    ...{ seed, model, plan: meshName(plan.mesh), size: `${width}*${height}`, frames, fps, steps, shift, guideScale },
    ...(guideScale2 === undefined ? {} : { guideScale2 }),
    ...(loras2 === undefined ? {} : { loras2 }),
  });
}
