import type { LogLevel } from "../../launcher/logs.js";
import { asPath, choiceOr, flag, type Option, path, type Values } from "../option.js";

const levels: readonly LogLevel[] = ["silent", "error", "warn", "info", "debug"];

const json: Option<string | undefined> = {
  value: "FILE",
  mayBeBare: true,
  completes: "file",
  describe: "Print one JSON document on stdout, or write it to FILE",
  otherwise: undefined,
  // "" is stdout; `-` is stdout, as everywhere.
  read: ([text = ""], name) => (text === "-" ? "" : asPath(text, name)),
};

/** Of every command that has a result: where it and what the launcher says go. */
export const outputOptions = {
  json,
  "log-level": choiceOr("info", levels, { describe: "What the launcher says on stderr" }),
  "log-dir": path("FOLDER", "folder", { describe: "Write launcher.log and each rank's stdout and stderr there" }),
  "dry-run": flag("Check everything and say what would run, without running it"),
} satisfies Record<string, Option<unknown>>;

export type OutputOptions = Values<typeof outputOptions>;
