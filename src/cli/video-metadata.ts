import { basename } from "node:path";
import type { NamedText } from "../models/wan/text/texts.js";
import { describeDtypes } from "../plan/names.js";
import { meshName, vaeDtype } from "../plan/schema.js";
import { isUnguided } from "../protocol/expert.js";
import type { WanGenerateTask } from "../protocol/job.js";
import { inComment, metadataOf } from "../video/metadata.js";
import type { VideoFormat, VideoMetadata } from "../video/video-writer.js";

/**
 * What a video tells of how it was made; the comment has the names of the options.
 * @param negative left out where guidance is 1, since nothing came of it.
 */
export function videoMetadata(
  prompt: NamedText,
  negative: NamedText,
  task: Omit<WanGenerateTask, "ids" | "dump">,
  format: VideoFormat,
): VideoMetadata {
  const { model, plan, sampling, seed, noise, generator, weights, bf16Steps, loras = [], loras2 = [] } = task;
  const { steps, solver, shift, guideScale, low, sigmas, initialScale } = sampling;
  return metadataOf(prompt.text, {
    prompt: inComment(prompt.text),
    ...(isUnguided(sampling) ? {} : { negativePrompt: inComment(negative.text) }),
    seed,
    model: model.name,
    ...(weights.from === "random" ? { weights: "random" } : {}),
    plan: meshName(plan.mesh),
    ...{ dtype: describeDtypes(plan), vaeDtype: vaeDtype(plan) },
    ...(bf16Steps === undefined ? {} : { bf16Steps }),
    ...{ size: `${format.width}*${format.height}`, frames: format.frames, fps: format.fps },
    ...{ steps, solver, ...(sigmas ? { sigmas } : { shift }) },
    ...(low ? { guideScale: [low.guideScale, guideScale], boundary: low.boundary } : { guideScale }),
    ...(initialScale === undefined ? {} : { initialScale }),
    ...(loras.length === 0 ? {} : { loras: loras.map(({ file, strength }) => `${basename(file)}:${strength}`) }),
    ...(loras2.length === 0 ? {} : { loras2: loras2.map(({ file, strength }) => `${basename(file)}:${strength}`) }),
    noise: noise ? "file" : (generator ?? "ditrun"),
  });
}
