import { logLevels } from "../../launcher/log-levels.js";
import { asPath, choiceOr, flag, type Option, path, type Values } from "../option.js";

const json: Option<string | undefined> = {
  value: "FILE",
  mayBeBare: true,
  completes: "file",
  describe: "Print one JSON document on stdout, or write it to FILE",
  otherwise: undefined,
  // "" is stdout; `-` is stdout, as everywhere.
  read: ([text = ""], name) => (text === "-" ? "" : asPath(text, name)),
};

const events: Option<string | undefined> = {
  value: "FILE",
  completes: "file",
  describe: "Write progress to FILE as it happens, one JSON object a line; - is stdout",
  otherwise: undefined,
  read: ([text = ""], name) => (text === "-" ? text : asPath(text, name)),
};

/** Of every command that has a result: where it and what the launcher says go. */
export const outputOptions = {
  json,
  events,
  quiet: flag("Say nothing but errors: no progress, no tables, no lines of workers; files are written as ever"),
  "log-level": choiceOr("info", logLevels, { describe: "What the launcher says on stderr" }),
  "log-dir": path("FOLDER", "folder", { describe: "Write launcher.log and each rank's stdout and stderr there" }),
  "dry-run": flag("Check everything and say what would run, without running it"),
} satisfies Record<string, Option<unknown>>;

export type OutputOptions = Values<typeof outputOptions>;
