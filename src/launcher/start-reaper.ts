import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { reaperEntry } from "../paths.js";

const shell = "/bin/sh";
// A shell waits, not Node.js: that takes a tenth of a second of a core from the ranks that start, and 40 MiB. Signals that a
// scheduler sends to all processes of a job are ignored from its first line on.
const waitThenReap = 'trap "" TERM INT HUP QUIT USR1 USR2; while read -r line; do :; done; exec "$@"';

/**
 * Starts a process that outlives this one where it is killed, and then kills all that carries the mark: other programs than
 * ditrun's workers do not see to that themselves.
 * @param onFailure gets the error where it cannot be started. @returns how to end it.
 */
export function startReaper(mark: string, onFailure: (error: Error) => void): () => void {
  const reap = [process.execPath, reaperEntry, mark];
  const reaper = existsSync(shell)
    ? start(shell, ["-c", waitThenReap, "ditrun-reaper", ...reap])
    : start(process.execPath, reap.slice(1));
  reaper.on("error", onFailure);
  // It has been ended already.
  reaper.stdin?.on("error", () => undefined);
  return () => reaper.kill("SIGKILL");
}

function start(program: string, words: readonly string[]): ChildProcess {
  return spawn(program, words, { detached: true, stdio: ["pipe", "ignore", "ignore"] });
}
