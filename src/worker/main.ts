import { ignoreWarnings } from "./scheduler-warnings.js";

// Each part as soon as it is there: the later ones take long to load.
ignoreWarnings();
const { prepareProcess } = await import("./early.js");
prepareProcess();
const { runWorker } = await import("./life.js");
await runWorker({
  async run(job, store) {
    const { runTask } = await import("./tasks/index.js");
    return runTask(job, store);
  },
});
