import { coreBindings } from "../../launcher/cores.js";
import type { RankOutput, StreamName } from "../../launcher/rank-lines.js";
import { mostWorkers } from "../../limits.js";
import type { JobOptions } from "../job-hosts.js";
import {
  asText,
  choice,
  choiceOr,
  decimal,
  flag,
  type Option,
  optional,
  readOptions,
  refuse,
  type Values,
  whole,
  withDefault,
} from "../option.js";
import { parseFilters, parseStreams, type StreamChoice } from "../run/streams.js";
import { hostsOptions } from "./hosts.js";
import { portNumber } from "./launch.js";
import { outputOptions } from "./output.js";

/** What torchrun's programs may be told, and has no meaning here: each is taken, and said to be so. */
export const idleOptions = {
  "rdzv-backend": choice(["c10d", "static"], {
    describe: "Taken as torchrun's: ditrun's own rendezvous does either's work",
  }),
  "monitor-interval": optional(
    { value: "SECONDS", describe: "Taken as torchrun's: the end of a rank is an event here" },
    decimal((value) => value > 0, "a number of seconds above 0"),
  ),
  "start-method": choice(["spawn", "fork", "forkserver"], {
    describe: "Taken as torchrun's: ranks are programs of their own",
  }),
  "logs-specs": optional({ value: "NAME", describe: "Taken as torchrun's: see --log-dir and --tee" }, asText),
  "event-log-handler": optional({ value: "NAME", describe: "Taken as torchrun's: see --log-dir and --json" }, asText),
} satisfies Record<string, Option<unknown>>;

const logFormats: readonly RankOutput["format"][] = ["text", "json"];

/** How long hosts wait for each other, where nothing is said. */
const JOIN_SECONDS = 120;

const streams = (letter: string, describe: string): Option<StreamChoice | undefined> => ({
  ...optional({ value: "0|1|2|3|RANK:N,…", describe }, parseStreams),
  letter,
});

const filters = (stream: StreamName) =>
  optional(
    { value: "TEXT,…", describe: `Keep lines of ${stream} that have one of these together, too; ,, is a comma` },
    parseFilters,
  );

/** Of `ditrun run` alone: torchrun's, by its names. */
export const ownRunOptions = {
  nproc: optional(
    {
      value: "N",
      describe: "Ranks on this host: a number, gpu (one per GPU), cpu (one per core) or auto (gpu, else cpu)",
      usual: "1",
    },
    (text, name): number | "gpu" | "cpu" | "auto" => {
      if (text === "gpu" || text === "cpu" || text === "auto") return text;
      if (/^\s*-?\d/.test(text)) return whole(1, mostWorkers)(text, name);
      return refuse(name, text, "a whole number of at least 1, gpu, cpu or auto");
    },
  ),
  module: { ...flag("PROGRAM is a Python module, as with python -m"), letter: "m" },
  "no-python": flag("Run a .py file by itself, not with Python"),
  "run-path": flag("Run the file with Python's runpy"),
  "max-restarts": withDefault(
    { value: "N", describe: "How often all ranks are started again after one has failed", usual: "0" },
    0,
    whole(0, 1_000_000),
  ),
  timeout: optional(
    { value: "SECONDS", describe: "End the job when no rank has written a line for so long", usual: "never" },
    decimal((value) => value > 0 && value <= 1e6, "a number of seconds above 0 and at most 1000000"),
  ),
  "shutdown-timeout": withDefault(
    { value: "SECONDS", describe: "How long ranks may take to end after a signal", usual: "3" },
    3,
    decimal((value) => value >= 0 && value <= 86_400, "a number of seconds from 0 to 86400"),
  ),
  "signals-to-handle": optional(
    {
      value: "NAME,…",
      describe: "Signals that end the job, sent on to the ranks; SIGUSR1 and SIGUSR2 can be added",
      usual: "SIGTERM,SIGINT,SIGHUP,SIGQUIT",
    },
    signalNames,
  ),
  redirects: streams("r", "Streams that go to files only: 1 stdout, 2 stderr, 3 both; or of single ranks of this host"),
  tee: streams("t", "Streams that go to files too"),
  "duplicate-stdout-filters": filters("stdout"),
  "duplicate-stderr-filters": filters("stderr"),
  "local-ranks-filter": optional(
    { value: "N,…", describe: "Show lines of these ranks of this host only", usual: "all" },
    rankNumbers,
  ),
  "log-format": choiceOr("text", logFormats, {
    describe: "Of the ranks' lines: [rank N] LINE, or a JSON object a line",
  }),
  role: withDefault({ value: "NAME", describe: "ROLE_NAME of the ranks", usual: "default" }, "default", asText),
  "virtual-local-rank": flag("Every rank has LOCAL_RANK 0 and sees one GPU, its own"),
  "numa-binding": choice(coreBindings, {
    describe:
      "Keep each rank on cores beside its GPU: of its node or socket, its own part of the node, or those of one L3 cache",
  }),
  "master-port": optional(
    { value: "PORT", describe: "MASTER_PORT, on which rank 0 listens", usual: "MASTER_PORT, else any free one" },
    portNumber,
  ),
  "rdzv-conf": optional(
    {
      value: "K=V,…",
      describe: "join_timeout=SECONDS: how long the hosts wait for each other",
      usual: "join_timeout=120",
    },
    joinTimeout,
  ),
  ...idleOptions,
} satisfies Record<string, Option<unknown>>;

/** Of `ditrun run`. */
export const runOptions = { ...ownRunOptions, ...hostsOptions };

export type RunOptions = Values<typeof runOptions>;

const endings: readonly NodeJS.Signals[] = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];

function signalNames(text: string, name: string): NodeJS.Signals[] {
  return text.split(",").map((word) => {
    const wanted = word.trim().toUpperCase();
    return (
      endings.find((signal) => signal === wanted || signal === `SIG${wanted}`) ??
      refuse(name, text, `some of ${endings.join(", ")}, separated by commas`)
    );
  });
}

function rankNumbers(text: string, name: string): ReadonlySet<number> {
  const words = text.split(",").map((word) => word.trim());
  if (words.some((word) => !/^\d+$/.test(word)))
    refuse(name, text, "numbers of ranks of this host, separated by commas");
  return new Set(words.map(Number));
}

/** The seconds of join_timeout; torchrun's other keys are of its own stores. */
function joinTimeout(text: string, name: string): number | undefined {
  const pairs = text.split(",").map((pair) => pair.split("="));
  if (pairs.some((pair) => pair.length !== 2 || pair[0] === "")) refuse(name, text, "KEY=VALUE, separated by commas");
  const [, seconds] = pairs.find(([key]) => key?.trim() === "join_timeout") ?? [];
  if (seconds === undefined) return undefined;
  const value = Number(seconds);
  return value > 0 && value <= 86_400 ? value : refuse(name, text, "join_timeout=SECONDS, above 0 and at most 86400");
}

/** What the launchers of several hosts need to know to meet. */
export function runJobOptions(given: ReadonlyMap<string, readonly string[]>): JobOptions {
  const { nproc, rdzvConf, ...chosen } = readOptions({ ...runOptions, ...outputOptions }, given);
  const count = typeof nproc === "number" ? nproc : undefined;
  return { ...chosen, nproc: count, timeout: rdzvConf ?? JOIN_SECONDS, device: "auto" };
}
