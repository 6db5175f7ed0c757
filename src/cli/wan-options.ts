import type { InferredOptionTypes, Options } from "yargs";
import { published, type WanPreset } from "../models/wan/presets.js";
import { checkFrames, parseSize, type VideoSize } from "../models/wan/video-size.js";
import { wholeNumber } from "./options.js";
import type { Session } from "./session.js";

/** An hour at the published rate, and a slip of the finger beyond. */
const MOST_FRAMES = 57_601;

/** Options of every command that is for videos of one size. */
export const videoOptions = {
  size: {
    type: "string",
    requiresArg: true,
    describe: "WIDTH*HEIGHT in pixels [default: 832*480; 14B: 1280*720; tiny: 96*64]",
  },
  frames: {
    type: "string",
    requiresArg: true,
    describe: "4n + 1 [default: 81; tiny: 9]",
    coerce: wholeNumber("frames", 1, MOST_FRAMES),
  },
} as const satisfies Record<string, Options>;

/** --model, else the smaller model on a GPU and the bundled one on a CPU. */
export function wanModelName({ options, device, log }: Session): string {
  if (options.model !== undefined) return options.model;
  const name = device.device === "cuda" ? "1.4B" : "tiny";
  log.logger.info(`No --model was given: ${name} runs on ${device.device === "cuda" ? "a GPU" : "the CPU"}.`);
  return name;
}

/** The video that those options, or else the model's preset, ask for. @throws DitrunError as parseSize and checkFrames. */
export function chosenVideo(
  { size, frames }: InferredOptionTypes<typeof videoOptions>,
  preset: WanPreset | undefined,
): { size: VideoSize; frames: number } {
  return {
    size: parseSize(size ?? preset?.size ?? published.size),
    frames: checkFrames(frames ?? preset?.frames ?? published.frames),
  };
}
