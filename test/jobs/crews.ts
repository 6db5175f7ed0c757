import { afterAll } from "vitest";
import { type EmitHandler, Workers } from "../../src/engine/workers.js";
import { openLog } from "../../src/launcher/logs.js";
import { builtKernels } from "../../src/paths.js";
import { hostRunsOf } from "../../src/protocol/host-runs.js";
import type { Task } from "../../src/protocol/job.js";

export interface CrewOptions {
  readonly onEmit?: EmitHandler;
  /** Ranks that each host is said to have, where there are several. */
  readonly perNode?: readonly number[] | undefined;
  /** As workers of an engine, which keep what they may need again. */
  readonly stays?: boolean;
}

/**
 * CPU workers for the tasks of a test file. Starting them costs more than most tasks, so each number of workers is started once,
 * and serves one task after the other.
 */
export class Crews {
  readonly #crews = new Map<string, Promise<Workers>>();

  private constructor() {}

  /** Crews that end with the file. A worker that fails on its way out fails the file. */
  static ofFile(): Crews {
    const crews = new Crews();
    afterAll(async () => {
      for (const crew of crews.#crews.values()) await (await crew).close();
    });
    return crews;
  }

  /** @returns the results by rank. @throws what the task ended with; after that its crew is replaced. */
  async run(task: Task, size: number, { onEmit, perNode, stays }: CrewOptions = {}): Promise<unknown[]> {
    const key = JSON.stringify([size, perNode, stays]);
    const crew = this.#crews.get(key) ?? start(size, perNode, stays);
    this.#crews.set(key, crew);
    const workers = await crew;
    try {
      return await workers.run(task, { onEmit });
    } catch (error) {
      this.#crews.delete(key);
      await workers.close().catch(() => undefined);
      throw error;
    }
  }
}

function start(nproc: number, perNode: readonly number[] | undefined, stays: boolean | undefined): Promise<Workers> {
  const hosts = perNode && hostRunsOf(perNode);
  const settings = {
    id: "crew",
    device: "cpu",
    kernels: builtKernels("cpu"),
    timeoutSeconds: 60,
    hosts,
    stays,
  } as const;
  return Workers.start({ settings, nproc, port: 0, log: openLog("warn") });
}
