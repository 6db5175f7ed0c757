import { createWriteStream, openSync, type WriteStream, writeSync } from "node:fs";
import { join } from "node:path";
import { type Logger, multistream, pino } from "pino";
import { z } from "zod";
import { fileFailure } from "../formats/file-failure.js";
import { makeFolder } from "../formats/folder.js";
import { DitrunError } from "../protocol/failure.js";

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
  line(stream: "stdout" | "stderr", text: string): void;
  close(): void;
}

const recordSchema = z.object({ msg: z.string() });

/** A full disk is said once, and the job goes on without the file. */
function openLauncherLog(path: string, stderr: NodeJS.WritableStream): { write(line: string): void } {
  const file = openSync(path, "a");
  let broken = false;
  return {
    write(line) {
      if (broken) return;
      try {
        writeSync(file, line);
      } catch (error) {
        broken = true;
        stderr.write(`ditrun: ${path} cannot be written any more: ${fileFailure(error)}.\n`);
      }
    },
  };
}

/**
 * Logs to the launcher's stderr as `ditrun: sentence` lines, and with a folder also to launcher.log there (JSON lines) and
 * to JOB/rank-N.stdout.log and JOB/rank-N.stderr.log. Worker lines reach stderr at every level, prefixed `[rank N] `.
 * @throws DitrunError when the folder cannot be made or written.
 */
export function openLog(level: LogLevel, folder?: string, stderr: NodeJS.WritableStream = process.stderr): Log {
  const console = {
    write: (line: string) => void stderr.write(`ditrun: ${recordSchema.parse(JSON.parse(line)).msg}\n`),
  };
  const streams: { level: pino.Level; stream: { write(line: string): void } }[] = [];
  if (level !== "silent") streams.push({ level, stream: console });
  if (folder !== undefined) {
    try {
      if (folder === "") throw new Error("it has no name");
      makeFolder(folder);
      streams.push({ level: "debug", stream: openLauncherLog(join(folder, "launcher.log"), stderr) });
    } catch (error) {
      throw new DitrunError(`--log-dir "${folder}" cannot be written: ${fileFailure(error)}.`, undefined, {
        cause: error,
      });
    }
  }
  const logger = pino({ level: "debug", base: { pid: process.pid } }, multistream(streams));

  const openFile = (path: string): WriteStream => {
    const file = createWriteStream(path);
    file.on("error", (error) => logger.error(`${path} cannot be written: ${fileFailure(error)}.`));
    return file;
  };

  return {
    level,
    logger,
    worker(jobId, rank) {
      const files: Partial<Record<"stdout" | "stderr", WriteStream>> = {};
      if (folder !== undefined) {
        makeFolder(join(folder, jobId));
        for (const name of ["stdout", "stderr"] as const) {
          files[name] = openFile(join(folder, jobId, `rank-${rank}.${name}.log`));
        }
      }
      return {
        line(stream, text) {
          stderr.write(`[rank ${rank}] ${text}\n`);
          files[stream]?.write(`${text}\n`);
        },
        close() {
          files.stdout?.end();
          files.stderr?.end();
        },
      };
    },
  };
}
