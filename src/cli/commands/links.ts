import { z } from "zod";
import { DitrunError, exitCodes } from "../../failure.js";
import { checkDocument } from "../../files/documents.js";
import { MOST_PEERS } from "../../plan/check.js";
import { planSchema } from "../../plan/schema.js";
import { type LinksTask, linkTransports } from "../../protocol/job.js";
import { type LinksRank, linksRankSchema } from "../../protocol/results.js";
import { type LinkSummary, linksTable, summarizeLinks } from "../../views/links-report.js";
import { linksVerdict } from "../../views/verdict.js";
import type { Body, Context } from "../command.js";
import { type LinksOptions, usualSizes } from "../options/links.js";
import { Session, type SessionOptions } from "../session.js";
import { showProgress } from "../show-progress.js";

type Transport = (typeof linkTransports)[number];

/** bf16 holds the sums that links checks exactly up to so many ranks (worker/tasks/links.ts). */
const MOST_EXACT = 85;

type Chosen = LinksOptions & SessionOptions;

/** `ditrun links`. */
export const links: Body<Chosen> = { run };

async function run(chosen: Chosen, context: Context): Promise<number> {
  const session = await Session.open(chosen, context);
  const { sizes, repetitions, transports } = chosen;
  const workers = workersOf(session);
  const bytes = parseSizes(sizes ?? usualSizes[session.device.device]);
  const carriers = transportsOf(transports, session, workers);
  if (carriers.includes("peer") && workers > MOST_PEERS) {
    throw new DitrunError(
      "ERR_NPROC",
      `links has ${workers} workers, but a sum over peer memory takes at most ${MOST_PEERS}: give --nproc ${MOST_PEERS} or less.`,
    );
  }
  if (workers > MOST_EXACT) {
    throw new DitrunError(
      "ERR_NPROC",
      `links has ${workers} workers, but it can check the sums of at most ${MOST_EXACT}: give --nproc ${MOST_EXACT} or less.`,
    );
  }
  const tasks = carriers.map((transport) => {
    const plan = planSchema.parse({
      name: `cp${workers} over ${transport}`,
      mesh: { cp: workers },
      ring: { transport },
    });
    return { transport, task: { kind: "links", plan, sizes: bytes, repetitions } as const };
  });
  if (session.options.dryRun) {
    session.print(`Dry run: ${tasks.map(({ task }) => task.plan.name).join(", ")}; ${bytes.join(", ")} bytes`);
    await session.emit({ dryRun: true, model: null, worldSize: workers, tasks: tasks.map(({ task }) => task) });
    return exitCodes.ok;
  }
  const results: LinkSummary[] = [];
  let device = "";
  for (const { transport, task } of tasks) {
    const ranks = await measure(session, task);
    device = ranks[0]?.device ?? device;
    results.push(...summarizeLinks(transport, ranks));
  }
  session.print(`${linksTable(session.page, device, workers, results)}\n`);
  const verdict = linksVerdict(device, workers, results);
  session.printVerdict(verdict);
  const plans = tasks.map(({ task }) => task.plan);
  await session.emit({
    device,
    deviceName: device,
    model: null,
    plans,
    worldSize: workers,
    repetitions,
    results,
    verdict,
  });
  return exitCodes.ok;
}

async function measure(session: Session, task: LinksTask): Promise<LinksRank[]> {
  const results = await showProgress(session, {}, (onEmit) => session.run(task, onEmit));
  return checkDocument("The workers' results", results, z.array(linksRankSchema), "ERR_INTERNAL");
}

/** --nproc, else all GPUs. @throws DitrunError for a single worker. */
function workersOf({ workers: asked, devices }: Session): number {
  const workers = asked ?? devices;
  if (workers >= 2) return workers;
  throw new DitrunError("ERR_NPROC", `There are no links within ${workers} worker: give --nproc 2 or more.`);
}

function parseSizes(text: string): number[] {
  const sizes = text.split(",").map((word) => {
    const [, digits = "", unit = ""] = /^(\d+)([KM]?)$/.exec(word.trim()) ?? [];
    const bytes = Number(digits) * (unit === "M" ? 2 ** 20 : unit === "K" ? 1024 : 1);
    if (bytes > 0 && bytes % 64 === 0 && bytes <= 2 ** 31) return bytes;
    throw new DitrunError(
      "ERR_OPTION_VALUE",
      `--sizes has "${word}"; a size is a multiple of 64 bytes up to 2048M, such as 64K or 16M.`,
    );
  });
  return [...new Set(sizes)];
}

function transportsOf(text: string | undefined, { device, onSeveralHosts }: Session, workers: number): Transport[] {
  // Ranks of two hosts cannot read each other's memory.
  if (text === undefined && onSeveralHosts) return ["nccl"];
  if (text === undefined) return device.device === "cuda" && workers <= device.count ? ["peer", "nccl"] : ["peer"];
  const named = text.split(",").map((word) => {
    const transport = linkTransports.find((name) => name === word.trim());
    if (transport !== undefined) return transport;
    throw new DitrunError(
      "ERR_OPTION_VALUE",
      `--transports has "${word}"; it must be peer, nccl or both, separated by a comma.`,
    );
  });
  return [...new Set(named)];
}
