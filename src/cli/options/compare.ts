import { decimal, flag, type Option, optional, type Values } from "../option.js";
import { outputOptions } from "./output.js";
import { reportOptions } from "./report.js";

/** Of `ditrun compare`. */
export const compareOptions = {
  html: reportOptions.html,
  "fail-above": optional(
    {
      value: "PERCENT",
      describe: "Exit with 1 where B is slower by more than this; of videos and dumps, where it differs by more",
    },
    decimal((value) => value >= 0 && value <= 1e6, "a number of per cent from 0 to 1000000"),
  ),
  json: outputOptions.json,
  quiet: flag("Print no table and no verdict; files are written as ever"),
} satisfies Record<string, Option<unknown>>;

export type CompareOptions = Values<typeof compareOptions>;
