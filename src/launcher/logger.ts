export const logLevels = ["silent", "error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof logLevels)[number];

/** Takes sentences, one a call. */
export type Logger = Readonly<Record<Exclude<LogLevel, "silent">, (sentence: string) => void>>;

/** Somebody who is told sentences of a level and of those before it. */
export interface Listener {
  readonly level: LogLevel;
  readonly take: (sentence: string, level: Exclude<LogLevel, "silent">) => void;
}

/** A logger that tells each listener what its level lets through. */
export function loggerOf(listeners: readonly Listener[]): Logger {
  const rank = (level: LogLevel) => logLevels.indexOf(level);
  const at = (level: Exclude<LogLevel, "silent">) => (sentence: string) => {
    for (const listener of listeners) if (rank(level) <= rank(listener.level)) listener.take(sentence, level);
  };
  return { error: at("error"), warn: at("warn"), info: at("info"), debug: at("debug") };
}

/** Numbers of levels in JSON lines, as pino and its readers have them. */
const numbers = { debug: 20, info: 30, warn: 40, error: 50 } as const;

/** A line of launcher.log. */
export function record(
  sentence: string,
  level: keyof typeof numbers,
  more: Readonly<Record<string, unknown>> = {},
): string {
  return `${JSON.stringify({ level: numbers[level], time: Date.now(), pid: process.pid, ...more, msg: sentence })}\n`;
}
