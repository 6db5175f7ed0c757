import { asText, choice, flag, type Option, optional, path, type Values } from "../option.js";
import { reportOptions } from "./report.js";
import { videoOptions } from "./video.js";

/** Of `ditrun wan accuracy`. */
export const wanAccuracyOptions = {
  plans: optional(
    {
      value: "PLAN,PLAN…",
      completes: "plans",
      describe: "Several plans, separated by commas",
      usual: "the given plan",
    },
    asText,
  ),
  against: choice(["same", "fp32"], {
    describe: "One device in the plan's own dtypes, or in float32",
    usual: "same, and then one device with one in float32",
  }),
  layers: flag("Also compare after each layer, and name the first one where two runs part"),
  html: reportOptions.html,
  ...videoOptions,
} satisfies Record<string, Option<unknown>>;

export type WanAccuracyOptions = Values<typeof wanAccuracyOptions>;

/** Of `ditrun accuracy`. */
export const accuracyOptions = {
  ...wanAccuracyOptions,
  weights: path("FOLDER", "folder", {
    describe: "Folder with config.json and model.safetensors",
    usual: "random weights",
  }),
  reference: path("FILE", "file", {
    describe: "Safetensors file with inputs img, t, y and the expected output, instead of a single-device run",
  }),
} satisfies Record<string, Option<unknown>>;

export type AccuracyOptions = Values<typeof accuracyOptions>;
