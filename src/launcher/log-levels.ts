/** What a log says, from nothing to everything. The command line reads this too, so nothing heavy is imported here. */
export const logLevels = ["silent", "error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof logLevels)[number];
