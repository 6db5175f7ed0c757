import { killProcessesOfJob } from "../protocol/job-processes.js";

// Run by a launch of any program: node reaper.js MARK. When its stdin ends, the launcher is gone, and so must be all that it started.
const mark = process.argv[2] ?? "";
const reap = () => {
  if (mark !== "") killProcessesOfJob(mark);
};
// A scheduler signals every process of a job. One that ends this one, or opens Node's debugger in it, would leave what it is there for.
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const)
  process.on(signal, () => undefined);
process.stdin.on("error", reap).on("close", reap).resume();
