import { type Option, path, type Values } from "../option.js";

/** Of every command that records where time goes. */
export const reportOptions = {
  html: path("FILE", "file", { describe: "Write a report as one HTML page, which needs no network" }),
  trace: path("FILE", "file", {
    describe:
      "Write a Chrome trace of all ranks (opens in Perfetto); FOLDER/ for a file of each rank, as Holistic Trace Analysis reads",
  }),
} satisfies Record<string, Option<unknown>>;

export type ReportOptions = Values<typeof reportOptions>;
