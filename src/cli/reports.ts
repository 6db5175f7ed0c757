import { access, constants } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { DitrunError } from "../failure.js";
import { fileFailure } from "../files/file-failure.js";
import { makeFolder } from "../files/folder.js";
import { checkOutputFile, writeOutput } from "../files/output-file.js";
import type { TraceRank } from "../protocol/results.js";
import type { Made } from "../views/html/facts.js";
import { chromeTrace, rankTraces } from "../views/trace/chrome.js";
import type { ReportOptions } from "./options/report.js";
import type { Session } from "./session.js";

/** `/` has no name, and is no place for a file of each rank. */
const isFolder = (target: string) => /[^/]\/$/.test(target);

/** Finds out before the work whether reports can be written. @throws DitrunError when one cannot. */
export async function checkReports({ html, trace }: Partial<ReportOptions>): Promise<void> {
  if (html !== undefined) await checkOutputFile(html, false);
  if (trace !== undefined) await checkTraceTarget(trace);
}

async function checkTraceTarget(target: string): Promise<void> {
  if (!isFolder(target)) return checkOutputFile(target, false);
  try {
    // The nearest folder that is there decides: those below it are made.
    await access(await nearestFolder(resolve(target)), constants.W_OK);
  } catch (error) {
    throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${target}: ${fileFailure(error)}.`, { cause: error });
  }
}

async function nearestFolder(path: string): Promise<string> {
  const isThere = await access(path).then(
    () => true,
    () => false,
  );
  return isThere || path === dirname(path) ? path : nearestFolder(dirname(path));
}

/** Unix time in nanoseconds at which this process's CLOCK_MONOTONIC was 0. */
const epochNanoseconds = () => Date.now() * 1e6 - Number(process.hrtime.bigint());

/**
 * Writes a trace: one file for viewers, or a folder with one for each rank. @param traceName says what it is of.
 * @throws DitrunError when a file cannot be written.
 */
export async function writeTrace(
  { log }: Session,
  target: string,
  traceName: string,
  ranks: readonly TraceRank[],
): Promise<void> {
  const facts = { traceName, epochNanoseconds: epochNanoseconds() };
  if (!isFolder(target)) {
    await writeOutput(target, JSON.stringify(chromeTrace(ranks, facts)));
    log.logger.info(`The trace is in ${target}: open it at ui.perfetto.dev.`);
    return;
  }
  try {
    makeFolder(target);
  } catch (error) {
    throw new DitrunError("ERR_FILE_WRITE", `Cannot write ${target}: ${fileFailure(error)}.`, { cause: error });
  }
  for (const { name, trace } of rankTraces(ranks, facts)) await writeOutput(join(target, name), JSON.stringify(trace));
  log.logger.info(`The trace is in ${target}, a file for each rank, as Holistic Trace Analysis reads them.`);
}

/** Writes a report. @param pageOf makes its HTML. @throws DitrunError when the file cannot be written. */
export async function writeReport(session: Session, target: string, pageOf: (made: Made) => string): Promise<void> {
  await writeOutput(target, pageOf(await session.made()));
  session.log.logger.info(`The report is in ${target}: open it in a browser.`);
}
