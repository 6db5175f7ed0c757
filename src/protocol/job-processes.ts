import { readdirSync, readFileSync } from "node:fs";
import { processStat } from "./process-stat.js";
import { rendezvousVariables } from "./variables.js";

/**
 * The live processes of this host whose environment carries a job's mark: its workers, and what they have started, also in
 * sessions of their own. @returns their ids, in order; none where nobody says.
 */
export function processesOfJob(mark: string): number[] {
  const entry = Buffer.from(`${rendezvousVariables.job}=${mark}\0`);
  return entriesOfProc()
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && carries(pid, entry))
    .sort((a, b) => a - b);
}

/** Ends them at once. @returns how many there were. */
export function killProcessesOfJob(mark: string): number {
  const pids = processesOfJob(mark);
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has ended meanwhile.
    }
  }
  return pids.length;
}

function entriesOfProc(): string[] {
  try {
    return readdirSync("/proc");
  } catch {
    return [];
  }
}

function carries(pid: number, entry: Buffer): boolean {
  try {
    // Those of other users cannot be read, and are none of ours. A process that has ended has no environment.
    return readFileSync(`/proc/${pid}/environ`).includes(entry) && !/^[ZX]$/.test(processStat(pid)?.state ?? "X");
  } catch {
    return false;
  }
}
