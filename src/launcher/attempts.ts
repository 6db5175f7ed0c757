import { isPassing, messageOf } from "../failure.js";
import { counted } from "../text.js";
import type { AskingRule } from "./ending.js";
import { ErrorFiles } from "./error-files.js";
import { checkPort, reservedPort } from "./free-port.js";
import { type Log, throughLog } from "./logs.js";
import type { Leader } from "./nodes/leader.js";
import type { ProgramPlace } from "./rank-program.js";
import { Silence } from "./silence.js";
import { startReaper } from "./start-reaper.js";
import { Supervisor, type SupervisorOptions } from "./supervisor.js";
import { rankList } from "./whereabouts.js";
import type { Program } from "./worker-process.js";

/** Several hosts, of which this one leads. */
export interface LedHosts {
  readonly leader: Leader;
  /** Ranks of each host, node 0 first. */
  readonly perNode: readonly number[];
}

export interface AttemptsOptions
  extends Pick<SupervisorOptions, "id" | "nproc" | "log" | "signal" | "urgent" | "onExit"> {
  readonly hosts?: LedHosts | undefined;
  /** MASTER_ADDR; the address that the other hosts know, or the loopback, by default. */
  readonly masterAddress?: string | undefined;
  readonly program: (place: ProgramPlace) => Program;
  /** How often all ranks are started again after one has failed. */
  readonly maxRestarts: number;
  /** For rank 0; otherwise a free one, another for each attempt. */
  readonly masterPort?: number | undefined;
  readonly asking?: AskingRule | undefined;
  /** For how long all ranks together may write nothing; for ever by default. */
  readonly silenceSeconds?: number | undefined;
  /** Told before all ranks are started again, for the first time with 1. */
  readonly onRestart?: (number: number) => void;
  /** The ranks are Python programs whose handler of fatal signals tells where they are. */
  readonly tellStacks?: boolean;
}

/** Characters of a folder's name. */
const MOST_NAME = 128;
/** After some ranks have ended well, how long the others are waited for without a word. */
const WORD_MILLISECONDS = 10_000;

/**
 * Runs a program as ranks of this host until all of them end with code 0, as often as is allowed.
 * @throws DitrunError with the first cause of the last attempt, or the signal's reason.
 */
export async function runAttempts(options: AttemptsOptions): Promise<void> {
  const { log, maxRestarts, signal } = options;
  const errorFiles = await ErrorFiles.open();
  try {
    for (let number = 0; ; number++) {
      try {
        return await attempt(options, number, errorFiles);
      } catch (error) {
        if (number >= maxRestarts || signal?.aborted || !isPassing(error)) throw error;
        log.logger.error(messageOf(error));
        options.onRestart?.(number + 1);
        log.logger.warn(`All ranks are started again: restart ${number + 1} of ${maxRestarts}.`);
      }
    }
  } finally {
    errorFiles.close();
  }
}

async function attempt(options: AttemptsOptions, number: number, errorFiles: ErrorFiles): Promise<void> {
  const { id, nproc, log, masterPort = 0, silenceSeconds, hosts, maxRestarts } = options;
  const own = hosts?.leader.ownAddress;
  if (masterPort !== 0) await checkPort(masterPort, own);
  const port = masterPort !== 0 ? masterPort : await reservedPort(own);
  const perNode = hosts?.perNode ?? [nproc];
  const size = perNode.reduce((sum, each) => sum + each, 0);
  // A name for a folder, whatever it was.
  const name = `${id
    .replace(/[^\w.-]/g, "_")
    .replace(/^\.+/, "_")
    .slice(0, MOST_NAME)}/attempt-${number}`;
  const detail = { id, nodes: perNode.length, restarts: number, maxRestarts };
  const ended = new Set<number>();
  const silence =
    silenceSeconds === undefined ? undefined : new Silence(silenceSeconds, () => supervisor.fail(silent(options)));
  const supervisor = new Supervisor({
    ...{ id: name, nproc, urgent: options.urgent, asking: options.asking, connections: perNode.length - 1 },
    signal: AbortSignal.any([options.signal, hosts?.leader.broken].filter((each) => each !== undefined)),
    log: silence === undefined ? log : heard(log, silence),
    mayEnd: () => true,
    reasonOf: (rank) => errorFiles.message(number, rank),
    onExit: (rank, exit) => {
      ended.add(rank);
      supervisor.tell();
      options.onExit?.(rank, exit);
    },
  });
  let endReaper = () => {};
  const word = new WordOfOthers(log, ended, size);
  try {
    const shared = { ...detail, size, localSize: nproc, address: options.masterAddress ?? own ?? "127.0.0.1", port };
    // A shell that waits: it is there before the ranks take every core.
    endReaper = startReaper(supervisor.mark, (error) => log.logger.warn(`No reaper: ${messageOf(error)}.`));
    await supervisor.start(
      (rank) => {
        const errorFile = errorFiles.path(number, rank);
        return options.program({ ...shared, rank, localRank: rank, node: 0, host: own, errorFile });
      },
      hosts?.leader.prepare({ id: name, perNode, port, detail: JSON.stringify(detail) }),
    );
    log.settle();
    const cause = await supervisor.until(() => {
      word.look();
      return ended.size === size;
    });
    word.close();
    silence?.close();
    await supervisor.end(cause, async () => undefined);
  } finally {
    word.close();
    silence?.close();
    supervisor.release();
    endReaper();
  }
}

/** Says once who still runs where others have ended well: they may wait for them for ever. */
class WordOfOthers {
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly log: Log,
    private readonly ended: ReadonlySet<number>,
    private readonly nproc: number,
  ) {}

  look(): void {
    if (this.ended.size > 0 && this.ended.size < this.nproc)
      this.#timer ??= setTimeout(() => this.#say(), WORD_MILLISECONDS);
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #say(): void {
    const running = Array.from({ length: this.nproc }, (_, rank) => rank).filter((rank) => !this.ended.has(rank));
    if (running.length === 0) return;
    const others = counted(this.ended.size, "rank");
    const verb = running.length === 1 ? "runs" : "run";
    this.log.logger.info(`${others} ended with code 0; ${rankList(running)} still ${verb}.`.replace("; R", "; r"));
  }
}

function silent({ silenceSeconds, tellStacks }: AttemptsOptions) {
  return {
    code: "ERR_RANK_SILENT" as const,
    message: `No rank has written a line for ${silenceSeconds} s, as --timeout allows`,
    echo: false,
    // What Python's handler of fatal signals writes says where each rank waits.
    ...(tellStacks ? { asks: "SIGABRT" as const } : {}),
    whereabouts: true,
  };
}

/** The same log, of whose lines the silence is told. */
function heard(log: Log, silence: Silence): Log {
  return throughLog(log, (lines) => (stream, given) => {
    silence.broken();
    return lines(stream, given);
  });
}
