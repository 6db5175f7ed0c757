import { resolve } from "node:path";
import { DitrunError, exitCodes } from "../../failure.js";
import { isWan } from "../../models/registry.js";
import { wanTokens } from "../../models/schema.js";
import { latentOf } from "../../models/wan/video-size.js";
import type { WanProfileTask } from "../../protocol/job.js";
import type { Body, Context } from "../command.js";
import { describeRuns } from "../dry-run.js";
import { ModelSession } from "../model-session.js";
import type { ModelRun } from "../options/model-run.js";
import type { WanProfileOptions } from "../options/profile.js";
import { aloneOf, checkProfileFiles, profileFiles, profileTask, timingOf } from "../profiling.js";
import { rehearse } from "../rehearsal.js";
import { chosenVideo, chosenWan } from "../wan-options.js";

type Chosen = WanProfileOptions & ModelRun;

/** `ditrun wan profile`. */
export const wanProfile: Body<Chosen> = { files: profileFiles, run };

/** Measures one forward of Wan's transformer with random weights, as `ditrun profile` does for the benchmark. */
async function run(chosen: Chosen, context: Context): Promise<number> {
  const session = await ModelSession.open(chosen, context);
  await checkProfileFiles(chosen);
  const { name, model, preset } = await chosenWan(session);
  const video = chosenVideo(chosen, preset);
  const size = latentOf(video.size, video.frames);
  if (!isWan(model)) {
    throw new DitrunError(
      "ERR_MODEL_KIND",
      `This command runs Wan 2.1, but ${name} is a ${model.kind} model: use ditrun profile.`,
    );
  }
  const tokens = wanTokens(model, size);
  const plan = await session.plan(model, session.options, { size });
  const task: WanProfileTask = {
    ...{ kind: "wan-profile", model, plan, size, seed: session.seed },
    ...timingOf(chosen, session),
    ...(chosen.dump === undefined ? {} : { dump: resolve(chosen.dump) }),
  };
  if (session.options.dryRun) {
    const memory = await rehearse(session, task);
    await describeRuns(session, model, chosen.baseline ? [plan, aloneOf(task).plan] : [plan], { tokens, memory });
    return exitCodes.ok;
  }
  await profileTask(session, task, chosen);
  return exitCodes.ok;
}
