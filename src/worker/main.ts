import { ignoreWarnings } from "./scheduler-warnings.js";

// Each part as soon as it is there: the later ones take long to load.
ignoreWarnings();
const { prepareProcess } = await import("./early.js");
prepareProcess();
const { runWorker } = await import("./life.js");
let tasks: InstanceType<typeof import("./tasks/index.js").Tasks> | undefined;
await runWorker({
  async run(job, store) {
    tasks ??= new (await import("./tasks/index.js")).Tasks();
    return tasks.run(job, store);
  },
  async close() {
    await tasks?.close();
  },
});
