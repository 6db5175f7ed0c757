import {
  type FoundModel,
  findCheckpointModel,
  findFileModel,
  findModel,
  findRepositoryModel,
  repositoryOf,
} from "../models/wan/find-model.js";
import { published, type WanPreset } from "../models/wan/presets.js";
import { checkFrames, parseSize, type VideoSize } from "../models/wan/video-size.js";
import type { VideoOptions } from "./options/video.js";
import type { Session } from "./session.js";

interface NamedPlaces {
  readonly ckptDir?: string | undefined;
  readonly transformer?: string | undefined;
  readonly transformer2?: string | undefined;
}

/**
 * What --model names, else what --transformer or --ckpt-dir holds, else the smaller model on a GPU and the bundled one on a CPU.
 * @throws DitrunError as findModel does.
 */
export async function chosenWan(
  session: Pick<Session, "device" | "tellLater"> & { readonly options: { readonly model?: string | undefined } },
  { ckptDir, transformer, transformer2 }: NamedPlaces = {},
): Promise<FoundModel> {
  const { options, device } = session;
  if (options.model !== undefined) return findModel(options.model);
  if (transformer !== undefined) {
    const found = await findFileModel(transformer, ckptDir, process.env, transformer2);
    if (found.guessed !== undefined) session.tellLater(found.guessed);
    return found;
  }
  const repository = await repositoryOf(ckptDir);
  if (repository !== undefined) return findRepositoryModel(repository, process.env);
  if (ckptDir !== undefined) return findCheckpointModel(ckptDir);
  const name = device.device === "cuda" ? "1.4B" : "tiny";
  session.tellLater(`No --model was given: ${name} runs on ${device.device === "cuda" ? "a GPU" : "the CPU"}.`);
  return findModel(name);
}

/** The video that those options, or else the model's preset, ask for. @throws DitrunError as parseSize and checkFrames. */
export function chosenVideo(
  { size, frames }: VideoOptions,
  preset: WanPreset | undefined,
): { size: VideoSize; frames: number } {
  return {
    size: parseSize(size ?? preset?.size ?? published.size),
    frames: checkFrames(frames ?? preset?.frames ?? published.frames),
  };
}
