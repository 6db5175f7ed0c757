import { DitrunError, exitCodes, messageOf } from "../protocol/failure.js";
import type { Job } from "../protocol/job.js";
import { rendezvousVariables } from "../protocol/messages.js";
import { readEnvironment } from "./environment.js";
import { wakeWithParentsDeath } from "./parent-death.js";
import { type Store, WorkerStore } from "./store.js";
import { endWithLauncher } from "./watchdog.js";

/**
 * A worker's life: join, run the task, report its result or its failure, end. Anything thrown, also outside the task's own
 * promise, is reported to the launcher, or on stderr when the launcher cannot be told.
 */
export async function runWorker(run: (job: Job, store: Store) => Promise<unknown>): Promise<void> {
  if (endWithLauncher() && !wakeWithParentsDeath()) {
    process.stderr.write("If this worker is stopped it will outlive a launcher that is killed: prctl was refused.\n");
  }
  let store: WorkerStore | undefined;
  let failing = false;

  const fail = async (error: unknown): Promise<void> => {
    if (failing) return;
    failing = true;
    const exitCode = error instanceof DitrunError ? error.exitCode : exitCodes.worker;
    const debug = process.env[rendezvousVariables.logLevel] === "debug" && error instanceof Error;
    if (debug) process.stderr.write(`${error.stack}\n`);
    const told = await store?.fail(messageOf(error), exitCode);
    if (!told && !debug) process.stderr.write(`${messageOf(error)}\n`);
    // Work that the task has queued may never end now; nothing waits for it.
    process.exit(exitCode);
  };
  // A file-size limit then fails the write that met it instead of ending the process.
  process.on("SIGXFSZ", () => undefined);
  process.on("uncaughtException", fail);
  process.on("unhandledRejection", fail);

  try {
    store = await WorkerStore.join(readEnvironment(process.env));
    await store.result(await run(store.job, store));
    store.close();
  } catch (error) {
    await fail(error);
  }
}
