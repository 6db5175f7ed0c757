import { basename } from "node:path";
import { escapeControls } from "../failure.js";
import type { NamedText } from "../models/wan/text/texts.js";
import { describeDtypes } from "../plan/resolve.js";
import { meshName, vaeDtype } from "../plan/schema.js";
import type { WanGenerateTask } from "../protocol/job.js";
import { packageVersion } from "../version.js";
import type { VideoFormat, VideoMetadata } from "../video/video-writer.js";

/** Far more than a text encoder reads. Both texts fit into one argument of a program, 128 KiB, whatever they are made of. */
const MOST_CHARACTERS = 8000;
const MOST_IN_TITLE = 200;

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
  const { model, plan, sampling, seed, noise, generator, weights, bf16Steps, loras = [] } = task;
  const { steps, solver, shift, guideScale, sigmas, initialScale } = sampling;
  const version = packageVersion();
  const comment = {
    ditrun: version,
    prompt: start(prompt.text, MOST_CHARACTERS),
    ...(guideScale === 1 ? {} : { negativePrompt: start(negative.text, MOST_CHARACTERS) }),
    seed,
    model: model.name,
    ...(weights.from === "random" ? { weights: "random" } : {}),
    plan: meshName(plan.mesh),
    ...{ dtype: describeDtypes(plan), vaeDtype: vaeDtype(plan) },
    ...(bf16Steps === undefined ? {} : { bf16Steps }),
    ...{ size: `${format.width}*${format.height}`, frames: format.frames, fps: format.fps },
    ...{ steps, solver, ...(sigmas ? { sigmas } : { shift }), guideScale },
    ...(initialScale === undefined ? {} : { initialScale }),
    ...(loras.length === 0 ? {} : { loras: loras.map(({ file, strength }) => `${basename(file)}:${strength}`) }),
    noise: noise ? "file" : (generator ?? "ditrun"),
  };
  return {
    title: start(escapeControls(prompt.text.replaceAll(/\s+/g, " ").trim()), MOST_IN_TITLE),
    comment: JSON.stringify(comment),
    software: `ditrun ${version}`,
  };
}

/** The first characters of a text. */
function start(text: string, most: number): string {
  if (text.length <= most) return text;
  const characters = [...text];
  return characters.length <= most ? text : `${characters.slice(0, most).join("")}…`;
}
