import { DitrunError, exitCodes, messageOf, PeerFailure } from "../failure.js";
import type { Job } from "../protocol/job.js";
import { rendezvousVariables } from "../protocol/variables.js";
import { prepareProcess } from "./early.js";
import { readEnvironment } from "./environment.js";
import { type Request, RequestFault, Stopped, type Store, WorkerStore } from "./store.js";

/** Does what requests ask for. */
export interface Server {
  run(job: Job, store: Store): Promise<unknown>;
  /** There are no more requests. */
  close?(): Promise<void>;
}

/**
 * A worker's life: join, serve requests until there are no more, end. Anything thrown, also outside a request's own promise, is
 * reported to the launcher, or on stderr when the launcher cannot be told.
 */
export async function runWorker(server: Server): Promise<void> {
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
    for (let request = await store.next(); request !== undefined; request = await store.next()) {
      await serve(store, request, server);
    }
    await server.close?.();
    store.close();
  } catch (error) {
    await fail(error);
  }
}

/** Serves one request. @throws what leaves the worker unable to serve others. */
async function serve(store: WorkerStore, { number, task }: Request, server: Server): Promise<void> {
  let result: unknown;
  try {
    result = await server.run({ ...store.settings, task }, store.storeOf(number));
  } catch (error) {
    if (error instanceof RequestFault) await store.fault(number, error);
    else if (!(error instanceof Stopped)) throw error;
    await store.stopped(number);
    return;
  }
  await store.result(number, result);
}
