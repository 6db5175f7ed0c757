import { resolve } from "node:path";
import type { ArgumentsCamelCase, InferredOptionTypes, Options } from "yargs";
import { DitrunError, exitCodes } from "../../protocol/failure.js";
import type { WanProfileTask } from "../../protocol/job.js";
import { wanTokens } from "../../protocol/model.js";
import { describeRuns } from "../dry-run.js";
import { loadModel } from "../model.js";
import { wholeNumber } from "../options.js";
import { aloneOf, profileOptions, profileTask, timingOf } from "../profiling.js";
import type { Session } from "../session.js";
import { presetOf, wanModelName } from "../wan/presets.js";
import { checkFrames, latentOf, parseSize } from "../wan/video-size.js";

const text = { type: "string", requiresArg: true } as const;

export const wanProfileOptions = {
  size: { ...text, describe: "WIDTH*HEIGHT in pixels [default: 832*480; 14B: 1280*720]" },
  frames: { ...text, describe: "4n + 1 [default: 81]", coerce: wholeNumber("frames", 1) },
  ...profileOptions,
  dump: { ...text, describe: "Write latent, text, t and the forward's output to FILE.safetensors" },
} as const satisfies Record<string, Options>;

/** Measures one forward of Wan's transformer with random weights, as `ditrun profile` does for the benchmark. */
export async function runWanProfile(
  chosen: ArgumentsCamelCase<InferredOptionTypes<typeof wanProfileOptions>>,
  session: Session,
): Promise<number> {
  const name = wanModelName(session);
  const preset = presetOf(name);
  const size = latentOf(
    parseSize(chosen.size ?? preset?.size ?? "832*480"),
    checkFrames(chosen.frames ?? preset?.frames ?? 81),
  );
  const model = await loadModel(preset?.config ?? name);
  if (model.kind !== "wan") {
    throw new DitrunError(`This command runs Wan 2.1, but ${name} is a ${model.kind} model: use ditrun profile.`);
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
