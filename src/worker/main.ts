import { runWorker } from "./run.js";

await runWorker(async (job, store) => {
  const { runTask } = await import("./tasks/index.js");
  return runTask(job, store);
});
