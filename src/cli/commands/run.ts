import { randomBytes } from "node:crypto";
import { mkdtempSync } from "node:fs";
import { availableParallelism, hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { DitrunError, exitCodes } from "../../failure.js";
import { type AttemptsOptions, runAttempts } from "../../launcher/attempts.js";
import type { Allocation } from "../../launcher/cluster/allocation.js";
import { ErrorFiles } from "../../launcher/error-files.js";
import { type Gpu, gpusOfHost, visibleGpus } from "../../launcher/gpus.js";
import type { Log } from "../../launcher/logs.js";
import { type ProgramPlace, rankProgram } from "../../launcher/rank-program.js";
import type { Program } from "../../launcher/worker-process.js";
import { counted } from "../../text.js";
import type { Body, Context } from "../command.js";
import { interruptSignals, unlessEnding } from "../interrupts.js";
import { camelCase } from "../option.js";
import { portNumber } from "../options/launch.js";
import type { OutputOptions } from "../options/output.js";
import { idleOptions, type RunOptions } from "../options/run.js";
import { ownAllocation } from "../own-allocation.js";
import { bindingOf } from "../run/numa.js";
import { type ProgramLine, programOf } from "../run/program.js";
import { whereLinesGo } from "../run/streams.js";
import { sessionLog } from "../session-log.js";
import { terminal } from "../terminal.js";

/** Characters of a command line that are told. */
const MOST_WORDS = 100;

type Chosen = RunOptions & OutputOptions;

/** `ditrun run`: any program, as torchrun starts it. */
export const runProgram: Body<Chosen> = { run, follow };

/** What is known before anything starts. */
interface Prepared {
  readonly program: ProgramLine;
  readonly allocation: Allocation;
  /** Ranks of this host. */
  readonly nproc: number;
  readonly gpus: readonly Gpu[];
  readonly visible: readonly string[];
  readonly log: Log;
  /** Where this host's ranks begin, once that is known. */
  readonly first: { rank: number };
}

function prepare(chosen: Chosen, rest: readonly string[]): Prepared {
  const program = programOf(rest, chosen, process.env);
  const allocation = ownAllocation(chosen);
  const gpus = gpusOfHost();
  const visible = visibleGpus(gpus, process.env.CUDA_VISIBLE_DEVICES);
  const nproc = ranksOf(chosen.nproc ?? allocation.workers, visible);
  const first = { rank: 0 };
  const log = openRunLog(chosen, first, allocation.nodes > 1);
  return { program, allocation, nproc, gpus, visible, log, first };
}

async function run(chosen: Chosen, context: Context): Promise<number> {
  const prepared = prepare(chosen, context.rest);
  try {
    return await lead(chosen, prepared, context);
  } finally {
    prepared.log.settle();
  }
}

async function lead(chosen: Chosen, prepared: Prepared, { document, hosts }: Context): Promise<number> {
  const { program, allocation, nproc, log } = prepared;
  if (hosts === undefined && allocation.why !== "") log.logger.info(allocation.why);
  tellStart(chosen, prepared);
  if (chosen.dryRun) {
    await document.write({ dryRun: true, nproc, command: program.command });
    return exitCodes.ok;
  }
  await unlessEnding();
  const led = await hosts?.gatherRanks(nproc, log);
  const all = led?.perNode.reduce((sum, each) => sum + each, 0) ?? nproc;
  const started = performance.now();
  const what = all === 1 ? "the rank" : `${all} ranks`;
  const interrupts = interruptSignals((sentence) => log.logger.info(sentence), what, chosen.signalsToHandle);
  let restarts = 0;
  try {
    await runAttempts({
      ...attemptsOf(chosen, prepared),
      ...{ hosts: led, signal: interrupts.signal, urgent: interrupts.urgent },
      onRestart: (number) => {
        restarts = number;
      },
    });
  } finally {
    interrupts.close();
  }
  const seconds = (performance.now() - started) / 1000;
  await document.write({ nproc: all, command: program.command, restarts, seconds });
  return exitCodes.ok;
}

/** The ranks of this host where another one leads. */
async function follow(chosen: Chosen, { rest, hosts }: Context): Promise<number> {
  if (hosts === undefined) throw new Error("This host is alone.");
  const { followingPlace } = await import("../../launcher/nodes/following-place.js");
  const prepared = prepare(chosen, rest);
  tellStart(chosen, prepared);
  const program = rankPrograms(chosen, prepared);
  const errorFiles = await ErrorFiles.open();
  let attempt = 0;
  try {
    return await hosts.followWith({
      ...{ log: prepared.log, workers: prepared.nproc, offer: "{}" },
      graceMilliseconds: chosen.shutdownTimeout * 1000,
      program: (rank, start) => {
        const place = followingPlace(rank, start);
        attempt = place.restarts;
        prepared.first.rank = place.rank - place.localRank;
        return program({ ...place, errorFile: errorFiles.path(attempt, rank) });
      },
      reasonOf: (rank) => errorFiles.message(attempt, rank),
    });
  } finally {
    prepared.log.settle();
    errorFiles.close();
  }
}

function tellStart(chosen: Chosen, { program, nproc, log }: Prepared): void {
  const words = program.command.join(" ");
  const shown = words.length > MOST_WORDS ? `${words.slice(0, MOST_WORDS)} …` : `${words}.`;
  log.logger.info(`${counted(nproc, "rank")} of ${shown}`);
  for (const sentence of remarks(chosen, nproc)) log.logger.info(sentence);
}

function attemptsOf(chosen: Chosen, prepared: Prepared): AttemptsOptions {
  const { maxRestarts, shutdownTimeout, timeout, masterAddr, masterPort, rdzvId } = chosen;
  const { allocation, program, nproc, log } = prepared;
  const { MASTER_PORT } = process.env;
  // With several hosts both name the launchers' own meeting.
  const isAlone = allocation.nodes === 1;
  const port = masterPort ?? (MASTER_PORT ? portNumber(MASTER_PORT, "MASTER_PORT") : undefined);
  return {
    id: rdzvId ?? `run-${randomBytes(4).toString("hex")}`,
    ...{ nproc, log, maxRestarts, silenceSeconds: timeout, tellStacks: program.isPython },
    asking: { milliseconds: shutdownTimeout * 1000, forwards: true },
    masterPort: isAlone ? port : undefined,
    masterAddress: isAlone ? masterAddr : undefined,
    program: rankPrograms(chosen, prepared),
  };
}

/** What each rank is. */
function rankPrograms(
  { role, numaBinding, virtualLocalRank }: Chosen,
  { program, nproc, gpus, visible, log }: Prepared,
): (place: ProgramPlace) => Program {
  const { CUDA_VISIBLE_DEVICES, OMP_NUM_THREADS, PYTHONFAULTHANDLER, TORCH_NCCL_ASYNC_ERROR_HANDLING } = process.env;
  const bind =
    numaBinding === undefined
      ? undefined
      : bindingOf(numaBinding, { gpus, visible: visible.slice(0, nproc) }, process.env, log.logger);
  const own = CUDA_VISIBLE_DEVICES?.split(",") ?? [];
  const shared = {
    ROLE_NAME: role,
    ...(OMP_NUM_THREADS === undefined && nproc > 1 ? { OMP_NUM_THREADS: "1" } : {}),
    TORCH_NCCL_ASYNC_ERROR_HANDLING: TORCH_NCCL_ASYNC_ERROR_HANDLING ?? "1",
    // A fatal signal is then told with its stack, and so is where a silent rank waits.
    ...(program.isPython ? { PYTHONFAULTHANDLER: PYTHONFAULTHANDLER ?? "1" } : {}),
  };
  return (place) => {
    const command = bind?.(place.localRank, program.command) ?? program.command;
    const virtual = virtualLocalRank ? virtualRank(place.localRank, own) : {};
    return rankProgram(command, place, {}, { ...shared, ...virtual });
  };
}

function virtualRank(localRank: number, visible: readonly string[]): Record<string, string> {
  return { LOCAL_RANK: "0", CUDA_VISIBLE_DEVICES: visible[localRank]?.trim() ?? String(localRank) };
}

function ranksOf(nproc: Chosen["nproc"], visible: readonly string[]): number {
  if (typeof nproc === "number") return nproc;
  if (nproc === undefined) return 1;
  if (nproc === "gpu" && visible.length === 0)
    throw new DitrunError("ERR_NPROC", "--nproc is gpu, but no GPU is to be seen: give a number, or cpu.");
  return nproc === "cpu" || visible.length === 0 ? availableParallelism() : visible.length;
}

/** Files go to --log-dir; where only --redirects or --tee wants them, to a temporary folder, which is told. */
function openRunLog(chosen: Chosen, first: Prepared["first"], onHosts: boolean): Log {
  const { logDir, redirects, tee, localRanksFilter, logFormat, json, events, quiet } = chosen;
  const filters = { stdout: chosen.duplicateStdoutFilters, stderr: chosen.duplicateStderrFilters };
  const wanted = [redirects, tee, filters.stdout, filters.stderr].some((each) => each !== undefined);
  const folder = logDir ?? (wanted ? mkdtempSync(join(tmpdir(), "ditrun-run-")) : undefined);
  // A document on stdout stands there alone.
  const stdout = json === "" || events === "-" ? terminal : process.stdout;
  const filter = quiet ? new Set<number>() : localRanksFilter;
  const log = sessionLog(
    { ...chosen, logDir: folder },
    {
      ...{ stdout, stderr: terminal, format: logFormat, colours: true, host: onHosts ? hostname() : undefined },
      filters,
      goes: whereLinesGo({ redirects, tee, filter }, first),
    },
  );
  if (logDir === undefined && folder !== undefined) log.logger.info(`The ranks' lines are kept in ${folder}.`);
  return log;
}

/** What the user may not expect, a sentence each. */
function remarks(chosen: Chosen, nproc: number): string[] {
  const idle = Object.keys(idleOptions).filter((name) => Reflect.get(chosen, camelCase(name)) !== undefined);
  const said = idle.length === 0 ? [] : [`No effect here: ${idle.map((name) => `--${name}`).join(", ")}.`];
  if (process.env.OMP_NUM_THREADS === undefined && nproc > 1)
    said.push("OMP_NUM_THREADS is 1 for each rank, as torchrun sets it; set it for more threads.");
  return said;
}
