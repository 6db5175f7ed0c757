import { hostname } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { styleText } from "node:util";
import { type Logger, multistream, pino } from "pino";
import { z } from "zod";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { makeFolder } from "../files/folder.js";
import { packageCommit, packageVersion } from "../version.js";
import { BoundedStream } from "./bounded-stream.js";
import { notedVariables } from "./cluster/noted-variables.js";
import { LogFile } from "./log-file.js";
import { visible } from "./terminal-text.js";

export const logLevels = ["silent", "error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof logLevels)[number];

/** Where the launcher says what it does, and where its workers' lines go. */
export interface Log {
  readonly level: LogLevel;
  readonly logger: Logger;
  /** Opens the files of one rank of one job; without a log folder its lines only go to stderr. */
  worker(jobId: string, rank: number): WorkerLog;
}

export interface WorkerLog {
  /** Takes lines as they came, in order. @returns a promise where the next ones should wait for it. */
  lines(stream: "stdout" | "stderr", lines: readonly string[]): Promise<void> | undefined;
  close(): void;
}

const recordSchema = z.object({ msg: z.string(), level: z.number() });

/** How the launcher's sentences and its ranks' lines reach people. */
export interface Console {
  readonly stderr?: Pick<Writable, "write" | "writableLength">;
  /** False: the lines of ranks go to the files alone. */
  readonly rankLines?: boolean;
  /** Whether warnings and errors have a colour. */
  readonly colour?: boolean;
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
  { stderr = process.stderr, rankLines = true, colour = false }: Console = {},
): Log {
  const terminal = new BoundedStream(stderr);
  const tell = (sentence: string, prefix = "ditrun:") => terminal.write(`${prefix} ${sentence}\n`);
  const console = {
    write(line: string) {
      const { msg, level: weight } = recordSchema.parse(JSON.parse(line));
      tell(msg, colour ? coloured(weight) : undefined);
    },
  };
  const streams: { level: pino.Level; stream: { write(line: string): void } }[] = [];
  if (level !== "silent") streams.push({ level, stream: console });
  if (folder !== undefined) {
    try {
      if (folder === "") throw new Error("it has no name");
      makeFolder(folder);
      const file = new LogFile(join(folder, "launcher.log"), "append", tell);
      streams.push({ level: "debug", stream: file });
    } catch (error) {
      throw new DitrunError("ERR_FILE_WRITE", `--log-dir "${folder}" cannot be written: ${fileFailure(error)}.`, {
        cause: error,
      });
    }
  }
  const logger = pino({ level: "debug", base: { pid: process.pid } }, multistream(streams));
  if (folder !== undefined) logger.debug(launchRecord());

  return {
    level,
    logger,
    worker(jobId, rank) {
      const files: Partial<Record<"stdout" | "stderr", LogFile>> = {};
      if (folder !== undefined) {
        for (const name of ["stdout", "stderr"] as const) {
          const path = join(folder, jobId, `rank-${rank}.${name}.log`);
          try {
            makeFolder(join(folder, jobId));
            files[name] = new LogFile(path, "anew", (message) => logger.error(message));
          } catch (error) {
            logger.error(`${path} cannot be written: ${fileFailure(error)}.`);
          }
        }
      }
      return {
        lines(stream, lines) {
          if (rankLines) terminal.write(lines.map((line) => `[rank ${rank}] ${visible(line)}\n`).join(""));
          files[stream]?.write(lines.map((line) => `${line}\n`).join(""));
          return terminal.room;
        },
        close() {
          files.stdout?.close();
          files.stderr?.close();
        },
      };
    },
  };
}

/** The word before a sentence, as its weight asks for. */
function coloured(weight: number): string {
  const { error, warn } = pino.levels.values;
  const isError = error !== undefined && weight >= error;
  const isWarning = warn !== undefined && weight >= warn;
  return styleText(isError ? "red" : isWarning ? "yellow" : "dim", "ditrun:", { validateStream: false });
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
function launchRecord() {
  const { argv, version: node } = process;
  const version = packageVersion();
  const commit = packageCommit();
  const msg = `ditrun ${version} starts on ${hostname()}, Node.js ${node}: ${argv.slice(2).join(" ")}`;
  const environment = notedVariables();
  return {
    version,
    commit,
    node,
    host: hostname(),
    directory: process.cwd(),
    arguments: argv.slice(2),
    environment,
    msg,
  };
}
