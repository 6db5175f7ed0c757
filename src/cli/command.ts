import type { Argv } from "yargs";
import type { NamedFile } from "../files/apart.js";
import type { GlobalArguments, GlobalOptions } from "./options.js";
import type { Session } from "./session.js";

/**
 * Says which command the line named: its global options, the files that its own options name, and what to run, which returns the
 * exit code.
 */
export type Select = (
  options: GlobalArguments,
  files: readonly NamedFile[],
  run: (session: Session) => Promise<number>,
) => void;

/** A command: one file in commands/, which tells the parser its options. */
export interface Command {
  readonly name: string;
  /** Words that may follow the name. */
  readonly subcommands?: readonly string[];
  readonly example: { readonly command: string; readonly describe: string };
  register(parser: Argv<GlobalOptions>, select: Select): Argv<GlobalOptions>;
}
