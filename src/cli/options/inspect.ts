import { type Option, path, type Values } from "../option.js";
import { outputOptions } from "./output.js";

/** Of `ditrun inspect`. */
export const inspectOptions = {
  plan: path("PLAN", "plan", {
    describe: "Also say what each worker holds of the transformer under this plan",
  }),
  json: outputOptions.json,
} satisfies Record<string, Option<unknown>>;

export type InspectOptions = Values<typeof inspectOptions>;
