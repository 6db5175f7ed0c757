import type { ArgumentsCamelCase } from "yargs";
import { exitCodes } from "../../failure.js";
import type { ProfileTask } from "../../protocol/job.js";
import type { Command } from "../command.js";
import { describeRuns } from "../dry-run.js";
import { ownOptions } from "../options.js";
import {
  aloneOf,
  checkProfileFiles,
  type ProfileOptions,
  profileFiles,
  profileOptions,
  profileTask,
  timingOf,
} from "../profiling.js";
import type { Session } from "../session.js";

/** Measure a model's forward under a plan: latency, throughput, TFLOP/s, memory, time by phase and by kernel. */
export const profile: Command = {
  name: "profile",
  example: {
    command: "$0 --nproc 8 --cp 4 --tp 2 profile",
    describe: "Eight workers: four share the tokens, in pairs",
  },
  register: (parser, select) =>
    parser.command(
      profile.name,
      "Measure a model's forward under a plan: latency, throughput, TFLOP/s, memory, time by phase and by kernel",
      (command) =>
        command
          .options(profileOptions)
          .group(Object.keys(profileOptions), ownOptions)
          .example(profile.example.command, profile.example.describe),
      (chosen) => select(chosen, profileFiles(chosen), (session) => run(chosen, session)),
    ),
};

async function run(chosen: ArgumentsCamelCase<ProfileOptions>, session: Session): Promise<number> {
  await checkProfileFiles(chosen);
  const { seed } = session;
  const model = await session.model();
  const plan = await session.plan(model);
  const weights = { from: "random", seed } as const;
  const task: ProfileTask = { kind: "profile", model, plan, weights, seed, ...timingOf(chosen, session) };
  if (session.options.dryRun) {
    await describeRuns(session, model, chosen.baseline ? [plan, aloneOf(task).plan] : [plan]);
    return exitCodes.ok;
  }
  await profileTask(session, task, chosen);
  return exitCodes.ok;
}
