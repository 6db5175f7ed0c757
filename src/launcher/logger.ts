import { multistream, type Logger as PinoLogger, pino } from "pino";
import { z } from "zod";

export const logLevels = ["silent", "error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof logLevels)[number];

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

const recordSchema = z.object({ msg: z.string(), level: z.number() });

/** The sentence of a record, and its level. */
export function sentenceOf(line: string): { sentence: string; level: Exclude<LogLevel, "silent"> } {
  const { msg, level } = recordSchema.parse(JSON.parse(line));
  const name = pino.levels.labels[level];
  return { sentence: msg, level: name === "error" || name === "warn" || name === "debug" ? name : "info" };
}
