import { type Log, openLog } from "../launcher/logs.js";
import type { RankOutput } from "../launcher/rank-lines.js";
import type { OutputOptions } from "./options/output.js";
import { terminal } from "./terminal.js";

/** How much is told: with --quiet only what went wrong. */
export function levelOf({ logLevel, quiet }: Pick<OutputOptions, "logLevel" | "quiet">): OutputOptions["logLevel"] {
  return quiet && logLevel !== "silent" ? "error" : logLevel;
}

/** The log that the options ask for. @param output sends a program's lines elsewhere; it starts before what is told of it. @throws DitrunError where its folder cannot be had. */
export function sessionLog(
  { logLevel, logDir, quiet }: Pick<OutputOptions, "logLevel" | "logDir" | "quiet">,
  output?: RankOutput,
): Log {
  if (quiet) terminal.silence();
  return openLog(levelOf({ logLevel, quiet }), logDir, {
    stderr: terminal,
    rankLines: !quiet,
    colour: terminal.page.colour,
    ...(output && { output, waits: true }),
  });
}
