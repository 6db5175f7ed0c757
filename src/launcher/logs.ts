import { hostname } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { styleText } from "node:util";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { makeFolder } from "../files/folder.js";
import { packageCommit, packageVersion } from "../version.js";
import { notedVariables } from "./cluster/noted-variables.js";
import { LogFile } from "./log-file.js";
import type { LogLevel } from "./log-levels.js";
import { type Listener, type Logger, Records, sentenceOf } from "./logger.js";
import { RankLines, type RankOutput, type WorkerLog } from "./rank-lines.js";

export type { LogLevel } from "./log-levels.js";
export type { WorkerLog } from "./rank-lines.js";

/** Where the launcher says what it does, and where its workers' lines go. */
export interface Log {
  readonly level: LogLevel;
  readonly logger: Logger;
  /** Opens the files of one rank of one job; without a log folder its lines are only shown. */
  worker(jobId: string, rank: number): WorkerLog;
  /** Tells what waits for the start of a program (`Console.waits`). */
  settle(): void;
}

/** How the launcher's sentences and its ranks' lines reach people. */
export interface Console {
  readonly stderr?: Pick<Writable, "write" | "writableLength">;
  /** False: the lines of ranks go to the files alone. */
  readonly rankLines?: boolean;
  /** Whether warnings and errors have a colour. */
  readonly colour?: boolean;
  /** Sends the ranks' lines elsewhere, or in another form; each to stderr by default. */
  readonly output?: RankOutput;
  /** Holds back what is no warning until `settle` is called, or for a tenth of a second: a program starts sooner so. */
  readonly waits?: boolean;
}

/**
 * Logs to the launcher's stderr as `ditrun: sentence` lines, and with a folder also to launcher.log there (JSON lines) and
 * to JOB/rank-N.stdout.log and JOB/rank-N.stderr.log. Worker lines reach stderr at every level, unless the console leaves them
 * out, prefixed `[rank N] `, with control characters written out; the files have them as they came.
 * @throws DitrunError when the folder cannot be made or written.
 */
export function openLog(
  level: LogLevel,
  folder?: string,
  { stderr = process.stderr, rankLines = true, colour = false, output, waits }: Console = {},
): Log {
  const goes = () => ({ shown: rankLines, kept: true });
  const lines = new RankLines(output ?? { stdout: stderr, stderr, format: "text", goes }, folder, (sentence) =>
    records.logger.error(sentence),
  );
  const terminal = lines.terminal(stderr);
  const tell = (sentence: string, prefix = "ditrun:") => void terminal.write(`${prefix} ${sentence}\n`);
  const console = (line: string) => {
    const { sentence, level: at } = sentenceOf(line);
    tell(sentence, colour ? colours[at] : undefined);
  };
  const listeners: Listener[] = [{ level, write: console }];
  if (folder !== undefined) {
    try {
      if (folder === "") throw new Error("it has no name");
      makeFolder(folder);
      const file = new LogFile(join(folder, "launcher.log"), "append", (sentence) => tell(sentence));
      listeners.push({ level: "debug", write: (line) => file.write(line) });
    } catch (error) {
      throw new DitrunError("ERR_FILE_WRITE", `--log-dir "${folder}" cannot be written: ${fileFailure(error)}.`, {
        cause: error,
      });
    }
  }
  const records = new Records(listeners, waits);
  const { logger } = records;
  if (folder !== undefined) logger.debug(...launchRecord());
  return { level, logger, worker: (jobId, rank) => lines.worker(jobId, rank), settle: () => records.settle() };
}

const painted = (colour: "red" | "yellow" | "dim") => styleText(colour, "ditrun:", { validateStream: false });

/** The word before a sentence, by its level. */
const colours = { error: painted("red"), warn: painted("yellow"), info: painted("dim"), debug: painted("dim") };

/** The same log, whose ranks' lines go through `take` on their way. */
export function throughLog(log: Log, take: (lines: WorkerLog["lines"], rank: number) => WorkerLog["lines"]): Log {
  return {
    ...log,
    worker(job, rank) {
      const own = log.worker(job, rank);
      return { ...own, lines: take((stream, lines) => own.lines(stream, lines), rank) };
    },
  };
}

/** Where a launch and its ranks leave their lines, besides the events. */
export interface LaunchLog {
  /** Of sentences about the launch on stderr. With a level, the ranks' lines go there too, each after `[rank N]`. */
  readonly level?: LogLevel | undefined;
  /** A folder for launcher.log and for the lines of each rank. */
  readonly folder?: string | undefined;
}

/** The log of work that a program asks for: nothing is written but what it wants. @throws DitrunError as openLog does. */
export function openOwnLog({ level, folder }: LaunchLog = {}): Log {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  return openLog(level ?? "silent", folder, { stderr: level === undefined ? nowhere : process.stderr });
}

/** What somebody who reads the log later wants to know first. */
function launchRecord(): [sentence: string, fields: object] {
  const { argv, version: node } = process;
  const version = packageVersion();
  const record = {
    ...{ version, commit: packageCommit(), node, host: hostname(), directory: process.cwd() },
    ...{ arguments: argv.slice(2), environment: notedVariables() },
  };
  return [`ditrun ${version} starts on ${hostname()}, Node.js ${node}: ${argv.slice(2).join(" ")}`, record];
}
