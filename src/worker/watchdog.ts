import { fstatSync } from "node:fs";
import { Worker } from "node:worker_threads";

/**
 * Ends this process, its group and what else it has started when stdin, a pipe that the launcher holds open, comes to its end: a launcher that was
 * killed leaves no worker behind. A thread of its own watches (watchdog-thread.ts), since the main thread may be inside a kernel
 * module. Does nothing when stdin is not a pipe, as when a worker is started by hand.
 * @returns whether it watches.
 */
export function endWithLauncher(): boolean {
  const stdin = fstatSync(0);
  if (!stdin.isFIFO() && !stdin.isSocket()) return false;
  new Worker(new URL("watchdog-thread.js", import.meta.url)).unref();
  return true;
}
