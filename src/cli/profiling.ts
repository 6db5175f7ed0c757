import { z } from "zod";
import type { NamedFile } from "../files/apart.js";
import { checkDocument } from "../files/documents.js";
import { checkOutputFile } from "../files/output-file.js";
import { planTitle } from "../plan/names.js";
import { evaluate } from "../plan/planner/evaluate.js";
import { singleDevicePlan } from "../plan/resolve.js";
import type { ProfileTask, WanProfileTask } from "../protocol/job.js";
import { profileRankSchema } from "../protocol/results.js";
import { profilePage } from "../views/html/profile-page.js";
import { kernelTable } from "../views/kernel-report.js";
import { prose } from "../views/page.js";
import { predictedSentence, predictionOf } from "../views/plan-report.js";
import { baselineTable, profileTable, speedupOf, summarizeProfile } from "../views/profile-report.js";
import { baselineVerdict, profileVerdict, speedupVerdict } from "../views/verdict.js";
import type { ModelSession } from "./model-session.js";
import { writes } from "./named-files.js";
import type { ProfileOptions } from "./options/profile.js";
import type { ReportOptions } from "./options/report.js";
import { checkReports, writeReport, writeTrace } from "./reports.js";
import type { Session } from "./session.js";
import { showProgress } from "./show-progress.js";

/** Forwards before and under the clock: a GPU needs more to settle, a CPU takes longer for each. */
const defaults = { cuda: { warmup: 3, iterations: 10 }, cpu: { warmup: 1, iterations: 3 } };

/** The part of a task that those options say. */
export function timingOf({ warmup, iterations, html, trace }: ProfileOptions, session: Session) {
  const usual = defaults[session.device.device];
  return {
    warmup: warmup ?? usual.warmup,
    iterations: iterations ?? usual.iterations,
    trace: trace !== undefined || html !== undefined,
  };
}

/** The files of a profile, by the options that name them. */
interface ProfileFiles extends ReportOptions {
  readonly dump?: string | undefined;
}

export function profileFiles({ html, trace, dump }: ProfileFiles): NamedFile[] {
  return writes({ "--html": html, "--trace": trace, "--dump": dump });
}

/** @throws DitrunError when one of a profile's files cannot be written. */
export async function checkProfileFiles({ html, trace, dump }: ProfileFiles): Promise<void> {
  await checkReports({ html, trace });
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
  { baseline, html, trace }: ProfileOptions,
): Promise<void> {
  const ranks = await measure(session, task);
  const summary = summarizeProfile(task, ranks, session.device);
  const { page } = session;
  session.print(`${profileTable(page, summary)}\n`);
  const [first] = ranks;
  if (first) session.print(`${kernelTable(page, first)}\n`);
  if (trace !== undefined) {
    await writeTrace(session, trace, `${task.model.name}, ${planTitle(task.plan)}`, ranks);
  }
  const machine = await session.machine();
  const size = "size" in task ? task.size : undefined;
  const { forward, forwardBytes } = evaluate(task.model, task.plan, machine, size);
  const predicted = predictionOf(forward, summary, machine);
  session.print(`${prose(page, predictedSentence(predicted))}\n`);
  const document = { ...summary, predicted, deviceName: summary.device };
  const verdict = profileVerdict(summary);
  const onPaper = { milliseconds: predicted.milliseconds, memoryBytes: forwardBytes };
  const report = { summary, ranks, verdict, predicted: onPaper };
  if (!baseline) {
    session.printVerdict(verdict);
    if (html !== undefined) await writeReport(session, html, (made) => profilePage({ ...report, made }));
    return session.emit({ ...document, verdict });
  }
  const single = aloneOf(task);
  const alone = summarizeProfile(single, await measure(session, single), session.device);
  const speedup = speedupOf(summary, alone);
  session.print(baselineTable(session.page, summary, alone));
  const gain = speedupVerdict(speedup);
  session.print("");
  session.printVerdict(baselineVerdict(gain, verdict));
  if (html !== undefined) await writeReport(session, html, (made) => profilePage({ ...report, made, speedup }));
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
