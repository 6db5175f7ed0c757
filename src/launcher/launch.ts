import { randomBytes } from "node:crypto";
import { DitrunError } from "../failure.js";
import { mostRanks, mostWorkers } from "../limits.js";
import { runAttempts } from "./attempts.js";
import { type LaunchLog, type Log, openOwnLog, throughLog } from "./logs.js";
import type { Leader } from "./nodes/leader.js";
import { rankProgram } from "./rank-program.js";

/** A program to start, once for each rank. */
export interface LaunchRequest {
  /** The program and its arguments, as `["python3", "train.py"]`. It is looked up in PATH; no shell comes between. */
  readonly command: readonly [program: string, ...rest: string[]];
  /** Processes, all on this host: 1 to 1024. */
  readonly nproc: number;
  /** Added to this process's own environment. The ranks' variables take precedence. */
  readonly environment?: Readonly<Record<string, string>> | undefined;
  /** MASTER_PORT, where rank 0 will listen: one that is free by default. */
  readonly masterPort?: number | undefined;
  /** How often all ranks are started again after one has failed; never by default. */
  readonly maxRestarts?: number | undefined;
  /** By default nothing is written anywhere. */
  readonly log?: LaunchLog | undefined;
}

/** A launch on several hosts, of which this one leads. */
export interface HostsRequest extends LaunchRequest {
  readonly leader: Leader;
  /** Ranks of each host, node 0 first; `nproc` is their sum. */
  readonly perNode: readonly number[];
}

/** How a rank ended: with a code, or by a signal. */
export type RankExit =
  | { readonly rank: number; readonly code: number; readonly signal?: undefined }
  | { readonly rank: number; readonly code?: undefined; readonly signal: NodeJS.Signals };

/** What happens while the ranks run. */
export type LaunchEvent =
  /** A line without its end; one of more than 64 KiB comes in pieces. */
  | { readonly kind: "output"; readonly rank: number; readonly stream: "stdout" | "stderr"; readonly line: string }
  /** The last event of its rank, unless all are started again. */
  | ({ readonly kind: "exit" } & RankExit);

export interface LaunchOptions {
  /** Ends all ranks; the launch is then rejected with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Called for each event, in the order of each rank. Where it returns a promise, no more of that rank's stream is read before
   * it resolves. What it throws ends all ranks, and the launch is rejected with it.
   */
  readonly onEvent?: ((event: LaunchEvent) => void | Promise<void>) | undefined;
}

export interface LaunchResult {
  /** By rank, of the last start; every code is 0. */
  readonly exits: readonly RankExit[];
}

/**
 * Starts a program, one process for each rank of this host, with the variables that torchrun gives: RANK, LOCAL_RANK, WORLD_SIZE,
 * LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT and their like. Every rank is a process group of its own with an empty stdin.
 * The first rank that fails ends the others: SIGTERM, and 1.5 s later SIGKILL. No process of a rank outlives the launch.
 * @returns when all ranks have ended with code 0.
 * @throws DitrunError with `rank`, `host` and the rank's own exit code: ERR_RANK_FAILED, ERR_RANK_SIGNAL (with `signal`) or
 * ERR_RANK_NOT_STARTED; before that ERR_NPROC, ERR_OPTION_VALUE, ERR_LIMIT or ERR_FILE_WRITE. Or the signal's reason.
 */
export async function launch(request: LaunchRequest, options: LaunchOptions = {}): Promise<LaunchResult> {
  return run(request, options);
}

/** The same on several hosts. Events of ranks elsewhere are their ends; their output is their host's. */
export async function launchOnHosts(request: HostsRequest, options: LaunchOptions = {}): Promise<LaunchResult> {
  return run(request, options);
}

async function run(request: LaunchRequest | HostsRequest, { signal, onEvent }: LaunchOptions): Promise<LaunchResult> {
  check(request, "leader" in request ? mostRanks : mostWorkers);
  signal?.throwIfAborted();
  const { command, nproc, masterPort, maxRestarts = 0, environment, log: wanted } = request;
  const id = `launch-${randomBytes(4).toString("hex")}`;
  const { leader, perNode = [nproc] } = "leader" in request ? request : { leader: undefined };
  const exits: RankExit[] = [];
  const events = new RankEvents(onEvent);
  const log = openOwnLog(wanted);
  try {
    await runAttempts({
      ...{ id, nproc: perNode[0] ?? nproc, maxRestarts, masterPort },
      hosts: leader && { leader, perNode },
      log: onEvent === undefined ? log : withEvents(log, events),
      signal: AbortSignal.any([events.broken, ...(signal ? [signal] : [])]),
      onExit: (rank, exit) => {
        if (exit.kind === "not started") return;
        const ended: RankExit = exit.kind === "code" ? { rank, code: exit.code } : { rank, signal: exit.signal };
        exits[rank] = ended;
        void events.tell({ kind: "exit", ...ended });
      },
      program: (place) => rankProgram(command, place, environment),
    });
  } finally {
    await events.told();
  }
  // What a handler threw at the last event, when all had ended well.
  events.broken.throwIfAborted();
  return { exits };
}

/** Tells the events of each rank one after the other. */
class RankEvents {
  readonly #last = new Map<number, Promise<void>>();
  readonly #broken = new AbortController();

  constructor(private readonly onEvent: LaunchOptions["onEvent"]) {}

  /** Aborted with what the handler threw; nothing is told after that. */
  get broken(): AbortSignal {
    return this.#broken.signal;
  }

  /** Resolves when the handler has dealt with the event. Never rejects. */
  tell(event: LaunchEvent): Promise<void> {
    const told = (this.#last.get(event.rank) ?? Promise.resolve()).then(async () => {
      try {
        if (!this.broken.aborted) await this.onEvent?.(event);
      } catch (error) {
        this.#broken.abort(error);
      }
    });
    this.#last.set(event.rank, told);
    return told;
  }

  /** Resolves when the handler has dealt with everything. */
  async told(): Promise<void> {
    await Promise.all(this.#last.values());
  }
}

function check({ command, nproc, masterPort, maxRestarts = 0 }: LaunchRequest, most: number): void {
  if (!Number.isInteger(nproc) || nproc < 1 || nproc > most)
    throw new DitrunError("ERR_NPROC", `nproc is ${nproc}; it must be a whole number from 1 to ${most}.`);
  if (command.length === 0 || command[0] === "" || command.some((word) => word.includes("\0")))
    throw new DitrunError("ERR_OPTION_VALUE", "command names no program: give it and its arguments, as text.");
  if (masterPort !== undefined && (!Number.isInteger(masterPort) || masterPort < 1 || masterPort > 65535))
    throw new DitrunError("ERR_OPTION_VALUE", `masterPort is ${masterPort}; it must be a port from 1 to 65535.`);
  if (!Number.isInteger(maxRestarts) || maxRestarts < 0)
    throw new DitrunError(
      "ERR_OPTION_VALUE",
      `maxRestarts is ${maxRestarts}; it must be a whole number of at least 0.`,
    );
}

/** The same log, of whose ranks each line is also told as an event. */
function withEvents(log: Log, events: RankEvents): Log {
  return throughLog(log, (lines, rank) => async (stream, given) => {
    const room = lines(stream, given);
    await Promise.all(given.map((line) => events.tell({ kind: "output", rank, stream, line })));
    await room;
  });
}
