import { DitrunError } from "../failure.js";
import { processLimit } from "../launcher/process-limit.js";
import { terminal } from "./terminal.js";

/** Loading the launcher alone opens some 150 files at once. */
const LEAST_OPEN_FILES = 256;

/**
 * Looks for what no part of the launcher could name later.
 * @throws DitrunError where the working directory is gone, or too few files may be open.
 */
export function checkSurroundings(): void {
  const files = processLimit("Max open files") ?? Number.POSITIVE_INFINITY;
  if (files < LEAST_OPEN_FILES) {
    throw new DitrunError(
      "ERR_LIMIT",
      `Only ${files} files may be open at once, and the launcher needs ${LEAST_OPEN_FILES}: raise the limit with ulimit -n 1024, or where the container or service is set up.`,
    );
  }
  try {
    process.cwd();
  } catch {
    throw new DitrunError(
      "ERR_WORKING_FOLDER",
      "The working directory has been removed: go to one that exists, with cd for instance.",
    );
  }
}

/** What a scheduler sends before it ends a job. */
export const warningNames = ["SIGUSR1", "SIGUSR2"] as const;
/** Those that end the job at hand, which has asked for it. */
export const endingWarnings = new Set<string>();

/** Unless a job wants to end then, there is nothing to save, and it goes on. */
export function tellOfWarnings(): void {
  for (const signal of warningNames) {
    process.on(signal, () => {
      if (endingWarnings.has(signal)) return;
      terminal.write(`ditrun: ${signal} is taken as the warning of a scheduler; the job goes on.\n`);
    });
  }
}
