import { randomBytes } from "node:crypto";
import { createServer } from "node:net";
import { z } from "zod";
import { DitrunError, messageOf } from "../failure.js";
import { parseMessage } from "../protocol/messages.js";
import { reachable } from "./cluster/addresses.js";
import { hostVariables, type Place, rankVariables } from "./cluster/rank-variables.js";
import { type LaunchLog, type Log, openOwnLog } from "./logs.js";
import type { Start } from "./nodes/follower.js";
import type { Leader } from "./nodes/leader.js";
import { startReaper } from "./start-reaper.js";
import { Supervisor } from "./supervisor.js";
import type { Program } from "./worker-process.js";

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
export async function launch(request: LaunchRequest, options: LaunchOptions = {}): Promise<LaunchResult> {
  return run(request, options);
}

/** The same on several hosts. Events of ranks elsewhere are their ends; their output is their host's. */
export async function launchOnHosts(request: HostsRequest, options: LaunchOptions = {}): Promise<LaunchResult> {
  return run(request, options);
}

async function run(request: LaunchRequest | HostsRequest, { signal, onEvent }: LaunchOptions): Promise<LaunchResult> {
  check(request);
  signal?.throwIfAborted();
  const { command, nproc, masterPort, environment, log: wanted } = request;
  const id = `launch-${randomBytes(4).toString("hex")}`;
  const { leader, perNode = [nproc] } = "leader" in request ? request : { leader: undefined };
  const [here = nproc] = perNode;
  const own = leader && reachable(leader.address);
  const port = masterPort ?? (await freePort(own));
  const exits: RankExit[] = [];
  const events = new RankEvents(onEvent);
  const log = openOwnLog(wanted);
  const supervisor = new Supervisor({
    ...{ id, nproc: here, mayEnd: () => true },
    log: onEvent === undefined ? log : withEvents(log, events),
    signal: AbortSignal.any([events.broken, signal, leader?.broken].filter((each) => each !== undefined)),
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
    const place = {
      size: nproc,
      localSize: here,
      address: own ?? "127.0.0.1",
      port,
      id,
      node: 0,
      nodes: perNode.length,
    };
    supervisor.start(
      (rank) => rankProgram(command, { ...place, rank, localRank: rank, host: own }, environment),
      leader?.prepare({ id, perNode, port, detail: JSON.stringify({ nodes: perNode.length }) }),
    );
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

/** A port of the address that nobody listens on now. @throws DitrunError where there is none. */
async function freePort(address = "127.0.0.1"): Promise<number> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject).listen(0, address, resolve);
    });
    const found = server.address();
    if (found !== null && typeof found === "object") return found.port;
    throw new Error("it has no number");
  } catch (error) {
    throw new DitrunError("ERR_PORT_TAKEN", `No free port can be had (${messageOf(error)}): give masterPort.`);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

/** The place of a rank of any program. */
interface ProgramPlace extends Place {
  /** Names the launch. */
  readonly id: string;
  /** The rank's host, of so many. */
  readonly node: number;
  readonly nodes: number;
  /** That host's address, where there are others. */
  readonly host: string | undefined;
}

const detailSchema = z.strictObject({ nodes: z.int().min(1).max(65_536) });

/** The program of a rank where another host leads. @throws Error where its message cannot be understood. */
export function followingProgram(
  command: LaunchRequest["command"],
  rank: number,
  { id, size, first, count, address, ownAddress, port, node, detail }: Start,
  environment?: LaunchRequest["environment"],
): Program {
  const { nodes } = parseMessage(detailSchema, new TextEncoder().encode(detail));
  const place = { rank, size, localRank: rank - first, localSize: count, address, port };
  return rankProgram(command, { ...place, id, node, nodes, host: ownAddress }, environment);
}

/** What torchrun tells a rank (PyTorch, torch/distributed/run.py, "Environment Variables"), without restarts. */
function rankProgram(
  command: LaunchRequest["command"],
  { id, node, nodes, host, ...place }: ProgramPlace,
  own: LaunchRequest["environment"],
): Program {
  const environment = {
    ...own,
    ...rankVariables(place),
    ...hostVariables(host),
    ROLE_RANK: String(place.rank),
    ROLE_WORLD_SIZE: String(place.size),
    ROLE_NAME: "default",
    GROUP_RANK: String(node),
    GROUP_WORLD_SIZE: String(nodes),
    TORCHELASTIC_RUN_ID: id,
    TORCHELASTIC_RESTART_COUNT: "0",
    TORCHELASTIC_MAX_RESTARTS: "0",
  };
  return { command, environment, stdin: "empty" };
}
