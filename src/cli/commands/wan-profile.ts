import { resolve } from "node:path";
import type { ArgumentsCamelCase, InferredOptionTypes, Options } from "yargs";
import { DitrunError, exitCodes } from "../../failure.js";
import { loadModel } from "../../models/load.js";
import { isWan } from "../../models/registry.js";
import { wanTokens } from "../../models/schema.js";
import { presetOf } from "../../models/wan/presets.js";
import { latentOf } from "../../models/wan/video-size.js";
import type { WanProfileTask } from "../../protocol/job.js";
import { describeRuns } from "../dry-run.js";
import { aloneOf, checkProfileFiles, profileOptions, profileTask, timingOf } from "../profiling.js";
import type { Session } from "../session.js";
import { chosenVideo, videoOptions, wanModelName } from "../wan-options.js";

export const wanProfileOptions = {
  ...videoOptions,
  ...profileOptions,
  dump: {
    type: "string",
    requiresArg: true,
    describe: "Write latent, text, t and the forward's output to FILE.safetensors",
  },
} as const satisfies Record<string, Options>;

/** Measures one forward of Wan's transformer with random weights, as `ditrun profile` does for the benchmark. */
export async function runWanProfile(
  chosen: ArgumentsCamelCase<InferredOptionTypes<typeof wanProfileOptions>>,
  session: Session,
): Promise<number> {
  await checkProfileFiles(chosen);
  const name = wanModelName(session);
  const preset = presetOf(name);
  const video = chosenVideo(chosen, preset);
  const size = latentOf(video.size, video.frames);
  const model = await loadModel(preset?.config ?? name);
  if (!isWan(model)) {
    throw new DitrunError(
      "ERR_MODEL_KIND",
      `This command runs Wan 2.1, but ${name} is a ${model.kind} model: use ditrun profile.`,
    );
  }
  const tokens = wanTokens(model, size);
  const plan = await session.plan(model, session.options, tokens);
  const task: WanProfileTask = {
    ...{ kind: "wan-profile", model, plan, size, seed: session.seed },
    ...timingOf(chosen, session),
    ...(chosen.dump === undefined ? {} : { dump: resolve(chosen.dump) }),
  };
  if (session.options.dryRun) {
    await describeRuns(session, model, chosen.baseline ? [plan, aloneOf(task).plan] : [plan], tokens);
    return exitCodes.ok;
  }
  await profileTask(session, task, chosen);
  return exitCodes.ok;
}
