import { z } from "zod";
import type { NamedFile } from "../files/apart.js";
import { checkDocument } from "../files/documents.js";
import { checkOutputFile, writeOutput } from "../files/output-file.js";
import { evaluate } from "../plan/planner/evaluate.js";
import { singleDevicePlan } from "../plan/resolve.js";
import type { ProfileTask, WanProfileTask } from "../protocol/job.js";
import { profileRankSchema } from "../protocol/results.js";
import { kernelTable } from "../views/kernel-report.js";
import { prose } from "../views/page.js";
import { predictedSentence, predictionOf } from "../views/plan-report.js";
import { baselineTable, profileTable, speedupOf, summarizeProfile } from "../views/profile-report.js";
import { chromeTrace } from "../views/trace.js";
import { baselineVerdict, profileVerdict, speedupVerdict } from "../views/verdict.js";
import type { ModelSession } from "./model-session.js";
import { writes } from "./named-files.js";
import type { ProfileOptions } from "./options/profile.js";
import type { Session } from "./session.js";
import { showProgress } from "./show-progress.js";

/** Forwards before and under the clock: a GPU needs more to settle, a CPU takes longer for each. */
const defaults = { cuda: { warmup: 3, iterations: 10 }, cpu: { warmup: 1, iterations: 3 } };

/** The part of a task that those options say. */
export function timingOf({ warmup, iterations, trace }: ProfileOptions, session: Session) {
  const usual = defaults[session.device.device];
  return {
    warmup: warmup ?? usual.warmup,
    iterations: iterations ?? usual.iterations,
    trace: trace !== undefined,
  };
}

/** The files of a profile, by the options that name them. */
interface ProfileFiles {
  readonly trace: string | undefined;
  readonly dump?: string | undefined;
}

export function profileFiles({ trace, dump }: ProfileFiles): NamedFile[] {
  return writes({ "--trace": trace, "--dump": dump });
}

/** @throws DitrunError when one of a profile's files cannot be written. */
export async function checkProfileFiles({ trace, dump }: ProfileFiles): Promise<void> {
  if (trace !== undefined) await checkOutputFile(trace, false);
  if (dump !== undefined) await checkOutputFile(dump, true);
}

/** The same task for one worker. */
export function aloneOf<Task extends ProfileTask | WanProfileTask>(task: Task): Task {
  return { ...task, plan: singleDevicePlan(task.plan), trace: false };
}

/** Runs the task, and for --baseline the same on one worker; prints tables and emits the JSON document. */
export async function profileTask(
  session: ModelSession,
  task: ProfileTask | WanProfileTask,
  { baseline, trace }: ProfileOptions,
): Promise<void> {
  const ranks = await measure(session, task);
  const summary = summarizeProfile(task, ranks, session.device);
  const { page } = session;
  session.print(`${profileTable(page, summary)}\n`);
  const [first] = ranks;
  if (first) session.print(`${kernelTable(page, first)}\n`);
  if (trace !== undefined) {
    await writeOutput(trace, JSON.stringify(chromeTrace(ranks)));
    session.log.logger.info(`The trace is in ${trace}: open it at ui.perfetto.dev.`);
  }
  const machine = await session.machine();
  const size = "size" in task ? task.size : undefined;
  const predicted = predictionOf(evaluate(task.model, task.plan, machine, size).forward, summary, machine);
  session.print(`${prose(page, predictedSentence(predicted))}\n`);
  const document = { ...summary, predicted, deviceName: summary.device };
  const verdict = profileVerdict(summary);
  if (!baseline) {
    session.printVerdict(verdict);
    return session.emit({ ...document, verdict });
  }
  const single = aloneOf(task);
  const alone = summarizeProfile(single, await measure(session, single), session.device);
  const speedup = speedupOf(summary, alone);
  session.print(baselineTable(session.page, summary, alone));
  const gain = speedupVerdict(speedup);
  session.print("");
  session.printVerdict(baselineVerdict(gain, verdict));
  const { latencyMs, tflops } = alone;
  const { factor, efficiency, ideal } = speedup;
  const result = { latencyMs, tflops, speedup: factor, efficiency, ideal, verdict: gain };
  await session.emit({ ...document, verdict, baseline: result });
}

async function measure(session: Session, task: ProfileTask | WanProfileTask) {
  const forwards = task.warmup + task.iterations + 1;
  const results = await showProgress(session, { forwards }, (onEmit) => session.run(task, onEmit));
  return checkDocument("The workers' results", results, z.array(profileRankSchema), "ERR_INTERNAL");
}
