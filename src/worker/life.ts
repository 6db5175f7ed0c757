import { DitrunError, exitCodes, messageOf, PeerFailure } from "../failure.js";
import type { Job } from "../protocol/job.js";
import { rendezvousVariables } from "../protocol/variables.js";
import { prepareProcess } from "./early.js";
import { readEnvironment } from "./environment.js";
import { type Store, WorkerStore } from "./store.js";

/**
 * A worker's life: join, run the task, report its result or its failure, end. Anything thrown, also outside the task's own
 * promise, is reported to the launcher, or on stderr when the launcher cannot be told.
 */
export async function runWorker(run: (job: Job, store: Store) => Promise<unknown>): Promise<void> {
  prepareProcess();
  let store: WorkerStore | undefined;
  let failing = false;

  const fail = async (error: unknown): Promise<void> => {
    if (failing) return;
    failing = true;
    const exitCode = error instanceof DitrunError ? error.exitCode : exitCodes.worker;
    const debug = process.env[rendezvousVariables.logLevel] === "debug" && error instanceof Error;
    if (debug) process.stderr.write(`${error.stack}\n`);
    const cause = error instanceof PeerFailure ? "peer" : "own";
    const told = await store?.fail(messageOf(error), exitCode, cause);
    if (!told && !debug) process.stderr.write(`${messageOf(error)}\n`);
    // Work that the task has queued may never end now; nothing waits for it.
    process.exit(exitCode);
  };
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
