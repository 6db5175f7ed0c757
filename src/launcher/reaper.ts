import { killProcessesOfJob } from "../protocol/job-processes.js";

// Run by a launch of any program: node reaper.js MARK. When its stdin ends, the launcher is gone, and so must be all that it started.
const mark = process.argv[2] ?? "";
const reap = () => {
  if (mark !== "") killProcessesOfJob(mark);
};
process.stdin.on("error", reap).on("close", reap).resume();
