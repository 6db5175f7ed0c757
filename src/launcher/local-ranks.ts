import { setTimeout as sleep } from "node:timers/promises";
import { killProcessesOfJob } from "../protocol/job-processes.js";
import { rendezvousVariables } from "../protocol/variables.js";
import type { Log } from "./logs.js";
import { type Program, type RankProcess, WorkerProcess } from "./worker-process.js";

/** How often, and how long after each other, what was killed is looked for until it is gone. */
const MOST_LOOKS = 50;
const LOOK_MILLISECONDS = 10;

/** A rank of this host. */
export interface LocalRank extends RankProcess {
  /** Resolves as soon as it has ended, before its output has been read. */
  readonly died: Promise<void>;
}

/** The ranks that one launch has on this host. */
export interface RanksHere {
  readonly all: readonly LocalRank[];
  start(rank: number, program: Program): LocalRank;
  kill(): void;
  killStrays(): Promise<number>;
}

/** The processes that one launch has on this host, and all that they have started. */
export class LocalRanks implements RanksHere {
  readonly #all: LocalRank[] = [];

  /**
   * @param id names the log files. @param mark stands in the environment of the processes and of all that they start, and in no
   * other's.
   */
  constructor(
    private readonly id: string,
    private readonly mark: string,
    private readonly log: Log,
  ) {}

  get all(): readonly LocalRank[] {
    return this.#all;
  }

  start(rank: number, own: Program): LocalRank {
    const marked = { ...own, environment: { ...own.environment, [rendezvousVariables.job]: this.mark } };
    const worker = new WorkerProcess(rank, marked, this.log.worker(this.id, rank));
    this.#all.push(worker);
    this.log.logger.debug(`Rank ${rank} is process ${worker.pid}.`);
    return worker;
  }

  /** Kills what runs, at once. */
  kill(): void {
    for (const worker of this.#all) worker.signal("SIGKILL");
  }

  /**
   * Kills what has left its worker's group, for a session of its own for instance; also what is just being started meanwhile.
   * @returns how many the first look found.
   */
  async killStrays(): Promise<number> {
    const found = killProcessesOfJob(this.mark);
    for (let look = 0, left = found; left > 0 && look < MOST_LOOKS; look++) {
      await sleep(LOOK_MILLISECONDS);
      left = killProcessesOfJob(this.mark);
    }
    return found;
  }
}
