import { randomBytes } from "node:crypto";
import { createServer } from "node:net";
import { DitrunError, messageOf } from "../failure.js";
import { rankVariables } from "./cluster/rank-variables.js";
import { type LaunchLog, type Log, openOwnLog } from "./logs.js";
import { startReaper } from "./start-reaper.js";
import { Supervisor } from "./supervisor.js";

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
  /** By default nothing is written anywhere. */
  readonly log?: LaunchLog | undefined;
}

/** How a rank ended: with a code, or by a signal. */
export type RankExit =
  | { readonly rank: number; readonly code: number; readonly signal?: undefined }
  | { readonly rank: number; readonly code?: undefined; readonly signal: NodeJS.Signals };

/** What happens while the ranks run. */
export type LaunchEvent =
  /** A line without its end; one of more than 64 KiB comes in pieces. */
  | { readonly kind: "output"; readonly rank: number; readonly stream: "stdout" | "stderr"; readonly line: string }
  /** The last event of its rank. */
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
  /** By rank; every code is 0. */
  readonly exits: readonly RankExit[];
}

const MOST_RANKS = 1024;

/**
 * Starts a program, one process for each rank of this host, with the variables that torchrun gives: RANK, LOCAL_RANK, WORLD_SIZE,
 * LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT and their like. Every rank is a process group of its own with an empty stdin.
 * The first rank that fails ends the others: SIGTERM, and 1.5 s later SIGKILL. No process of a rank outlives the launch.
 * @returns when all ranks have ended with code 0.
 * @throws DitrunError with `rank`, `host` and the rank's own exit code: ERR_RANK_FAILED, ERR_RANK_SIGNAL (with `signal`) or
 * ERR_RANK_NOT_STARTED; before that ERR_NPROC, ERR_OPTION_VALUE, ERR_LIMIT or ERR_FILE_WRITE. Or the signal's reason.
 */
export async function launch(request: LaunchRequest, { signal, onEvent }: LaunchOptions = {}): Promise<LaunchResult> {
  check(request);
  signal?.throwIfAborted();
  const { command, nproc, masterPort, environment, log: wanted } = request;
  const id = `launch-${randomBytes(4).toString("hex")}`;
  const port = masterPort ?? (await freePort());
  const exits: RankExit[] = [];
  const events = new RankEvents(onEvent);
  const log = openOwnLog(wanted);
  const supervisor = new Supervisor({
    ...{ id, nproc, mayEnd: () => true },
    log: onEvent === undefined ? log : withEvents(log, events),
    signal: AbortSignal.any([events.broken, ...(signal ? [signal] : [])]),
    onExit: (rank, exit) => {
      if (exit.kind === "not started") return;
      const ended: RankExit = exit.kind === "code" ? { rank, code: exit.code } : { rank, signal: exit.signal };
      exits[rank] = ended;
      void events.tell({ kind: "exit", ...ended });
    },
  });
  const endReaper = startReaper(supervisor.mark, (error) => log.logger.warn(`No reaper: ${messageOf(error)}.`));
  const ended = () => exits.filter((exit) => exit !== undefined).length === nproc;
  try {
    supervisor.start((rank) => ({
      command,
      environment: {
        ...environment,
        ...rankVariables({ rank, size: nproc, localRank: rank, localSize: nproc, address: "127.0.0.1", port }),
        ...roleVariables(rank, nproc, id),
      },
      stdin: "empty",
    }));
    await supervisor.end(await supervisor.until(ended), async () => undefined);
  } finally {
    supervisor.release();
    endReaper();
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

function check({ command, nproc, masterPort }: LaunchRequest): void {
  if (!Number.isInteger(nproc) || nproc < 1 || nproc > MOST_RANKS)
    throw new DitrunError("ERR_NPROC", `nproc is ${nproc}; it must be a whole number from 1 to ${MOST_RANKS}.`);
  if (command.length === 0 || command[0] === "" || command.some((word) => word.includes("\0")))
    throw new DitrunError("ERR_OPTION_VALUE", "command names no program: give it and its arguments, as text.");
  if (masterPort !== undefined && (!Number.isInteger(masterPort) || masterPort < 1 || masterPort > 65535))
    throw new DitrunError("ERR_OPTION_VALUE", `masterPort is ${masterPort}; it must be a port from 1 to 65535.`);
}

/** The same log, of whose ranks each line is also told as an event. */
function withEvents(log: Log, events: RankEvents): Log {
  return {
    ...log,
    worker(job, rank) {
      const own = log.worker(job, rank);
      return {
        close: () => own.close(),
        async lines(stream, lines) {
          const room = own.lines(stream, lines);
          await Promise.all(lines.map((line) => events.tell({ kind: "output", rank, stream, line })));
          await room;
        },
      };
    },
  };
}

/** A port of the loopback that nobody listens on now. @throws DitrunError where there is none. */
async function freePort(): Promise<number> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject).listen(0, "127.0.0.1", resolve);
    });
    const address = server.address();
    if (address !== null && typeof address === "object") return address.port;
    throw new Error("it has no number");
  } catch (error) {
    throw new DitrunError("ERR_PORT_TAKEN", `No free port can be had (${messageOf(error)}): give masterPort.`);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

/** What torchrun tells besides a rank's place (PyTorch, torch/distributed/run.py, "Environment Variables"), for one host and no restarts. */
function roleVariables(rank: number, nproc: number, id: string): Record<string, string> {
  return {
    ROLE_RANK: String(rank),
    ROLE_WORLD_SIZE: String(nproc),
    ROLE_NAME: "default",
    GROUP_RANK: "0",
    GROUP_WORLD_SIZE: "1",
    TORCHELASTIC_RUN_ID: id,
    TORCHELASTIC_RESTART_COUNT: "0",
    TORCHELASTIC_MAX_RESTARTS: "0",
  };
}
