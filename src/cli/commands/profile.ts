import { exitCodes } from "../../failure.js";
import type { ProfileTask } from "../../protocol/job.js";
import type { Body, Context } from "../command.js";
import { describeRuns } from "../dry-run.js";
import { ModelSession } from "../model-session.js";
import type { ModelRun } from "../options/model-run.js";
import type { ProfileOptions } from "../options/profile.js";
import { aloneOf, checkProfileFiles, profileFiles, profileTask, timingOf } from "../profiling.js";
import { rehearse } from "../rehearsal.js";

type Chosen = ProfileOptions & ModelRun;

/** `ditrun profile`. */
export const profile: Body<Chosen> = { files: profileFiles, run };

async function run(chosen: Chosen, context: Context): Promise<number> {
  const session = await ModelSession.open(chosen, context);
  await checkProfileFiles(chosen);
  const { seed } = session;
  const model = await session.model();
  const plan = await session.plan(model);
  const weights = { from: "random", seed } as const;
  const task: ProfileTask = { kind: "profile", model, plan, weights, seed, ...timingOf(chosen, session) };
  if (session.options.dryRun) {
    const memory = await rehearse(session, task);
    await describeRuns(session, model, chosen.baseline ? [plan, aloneOf(task).plan] : [plan], { memory });
    return exitCodes.ok;
  }
  await profileTask(session, task, chosen);
  return exitCodes.ok;
}
