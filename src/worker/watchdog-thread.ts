import { Socket } from "node:net";
import { killProcessesOfJob } from "../protocol/job-processes.js";
import { jobMark } from "./environment.js";

// Run as a thread of a worker by endWithLauncher.
const stdin = new Socket({ fd: 0, readable: true, writable: false });
stdin.on("error", endGroup);
stdin.on("close", endGroup);
stdin.resume();

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
