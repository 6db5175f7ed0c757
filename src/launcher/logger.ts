import { multistream, type Logger as PinoLogger, pino } from "pino";
import type { LogLevel } from "./log-levels.js";

/** Takes sentences, one a call, and for pino's records more fields before one. */
export type Logger = Pick<PinoLogger, Exclude<LogLevel, "silent">>;

/** Somebody who gets the records of a level and of those before it, each a line of JSON. */
export interface Listener {
  readonly level: LogLevel;
  readonly write: (line: string) => void;
}

/** A logger that tells each listener what its level lets through. */
export function loggerOf(listeners: readonly Listener[]): Logger {
  const streams = listeners.flatMap(({ level, write }) => (level === "silent" ? [] : [{ level, stream: { write } }]));
  return pino({ level: "debug", base: { pid: process.pid } }, multistream(streams));
}

/** The sentence of a record, and its level. A schema library would cost the start of a program a sixth of a second. */
export function sentenceOf(line: string): { sentence: string; level: Exclude<LogLevel, "silent"> } {
  const record: unknown = JSON.parse(line);
  if (typeof record !== "object" || record === null || !("msg" in record) || !("level" in record))
    throw new Error(`A record of the log has no sentence: ${line}`);
  const name = pino.levels.labels[Number(record.level)];
  return {
    sentence: String(record.msg),
    level: name === "error" || name === "warn" || name === "debug" ? name : "info",
  };
}
