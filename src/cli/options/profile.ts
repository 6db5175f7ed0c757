import { flag, type Option, optional, path, type Values, whole } from "../option.js";
import { reportOptions } from "./report.js";
import { videoOptions } from "./video.js";

/** Of every command that times forwards. */
export const profileOptions = {
  warmup: optional(
    { value: "N", describe: "Forwards before the clock starts", usual: "3 on a GPU, 1 on a CPU" },
    whole(0),
  ),
  iterations: optional({ value: "N", describe: "Timed forwards", usual: "10 on a GPU, 3 on a CPU" }, whole(1)),
  baseline: flag("Also measure one worker and print the speed-up"),
  ...reportOptions,
} satisfies Record<string, Option<unknown>>;

export type ProfileOptions = Values<typeof profileOptions>;

/** Of `ditrun wan profile`. */
export const wanProfileOptions = {
  ...videoOptions,
  ...profileOptions,
  dump: path("FILE", "file", { describe: "Write latent, text, t and the forward's output to FILE.safetensors" }),
} satisfies Record<string, Option<unknown>>;

export type WanProfileOptions = Values<typeof wanProfileOptions>;
