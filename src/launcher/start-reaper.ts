import { spawn } from "node:child_process";
import { reaperEntry } from "../paths.js";

/**
 * Starts a process that outlives this one where it is killed, and then kills all that carries the mark: other programs than
 * ditrun's workers do not see to that themselves.
 * @param onFailure gets the error where it cannot be started. @returns how to end it.
 */
export function startReaper(mark: string, onFailure: (error: Error) => void): () => void {
  const reaper = spawn(process.execPath, [reaperEntry, mark], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  reaper.on("error", onFailure);
  // It has been ended already.
  reaper.stdin.on("error", () => undefined);
  return () => reaper.kill("SIGKILL");
}
