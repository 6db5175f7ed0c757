import { fstatSync } from "node:fs";
import { Socket } from "node:net";
import { isMainThread, Worker } from "node:worker_threads";
import { killProcessesOfJob } from "../protocol/job-processes.js";
import { jobMark } from "./environment.js";

/**
 * Ends this process, its group and what else it has started when stdin, a pipe that the launcher holds open, comes to its end: a launcher that was
 * killed leaves no worker behind. A thread of its own watches, since the main thread may be inside a kernel module.
 * Does nothing when stdin is not a pipe, as when a worker is started by hand.
 * @returns whether it watches.
 */
export function endWithLauncher(): boolean {
  const stdin = fstatSync(0);
  if (!stdin.isFIFO() && !stdin.isSocket()) return false;
  new Worker(new URL(import.meta.url)).unref();
  return true;
}

if (!isMainThread) {
  const stdin = new Socket({ fd: 0, readable: true, writable: false });
  stdin.on("error", endGroup);
  stdin.on("close", endGroup);
  stdin.resume();
}

function endGroup(): void {
  const mark = jobMark();
  if (mark !== undefined) killProcessesOfJob(mark);
  try {
    process.kill(-process.pid, "SIGKILL");
  } catch {
    // Not the leader of a group: started by hand behind a pipe.
    process.kill(process.pid, "SIGKILL");
  }
}
