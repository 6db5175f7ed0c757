import type { ArgumentsCamelCase, InferredOptionTypes, Options } from "yargs";
import { z } from "zod";
import { exitCodes } from "../../protocol/failure.js";
import type { ProfileTask } from "../../protocol/job.js";
import { profileRankSchema } from "../../protocol/results.js";
import type { Command } from "../command.js";
import { checkDocument } from "../documents.js";
import { describeRuns } from "../dry-run.js";
import { wholeNumber } from "../options.js";
import { singleDevicePlan } from "../plan.js";
import { figures, profileTable, summarizeProfile } from "../profile-report.js";
import { type Session, writeOutput } from "../session.js";
import { chromeTrace } from "../trace.js";

/** Forwards before and under the clock: a GPU needs more to settle, a CPU takes longer for each. */
const defaults = { cuda: { warmup: 3, iterations: 10 }, cpu: { warmup: 1, iterations: 3 } };

const options = {
  warmup: {
    type: "string",
    requiresArg: true,
    coerce: wholeNumber("warmup", 0),
    describe: "Forwards before the clock starts [default: 3 on a GPU, 1 on a CPU]",
  },
  iterations: {
    type: "string",
    requiresArg: true,
    coerce: wholeNumber("iterations", 1),
    describe: "Timed forwards [default: 10 on a GPU, 3 on a CPU]",
  },
  baseline: { type: "boolean", default: false, describe: "Also measure one worker and print the speed-up" },
  trace: {
    type: "string",
    requiresArg: true,
    describe: "Write a Chrome trace of all ranks to FILE (opens in Perfetto)",
  },
} as const satisfies Record<string, Options>;

type ProfileArguments = ArgumentsCamelCase<InferredOptionTypes<typeof options>>;

/** Measure a model's forward under a plan: latency, throughput, TFLOP/s, memory, time by phase. */
export const profile: Command = {
  name: "profile",
  example: {
    command: "$0 --nproc 8 --cp 4 --tp 2 profile",
    describe: "Eight workers: four share the tokens, in pairs",
  },
  register: (parser, select) =>
    parser.command(
      profile.name,
      "Measure a model's forward under a plan: latency, throughput, TFLOP/s, memory, time by phase",
      (command) => command.options(options).example(profile.example.command, profile.example.describe),
      (chosen) => select(chosen, (session) => run(chosen, session)),
    ),
};

async function run({ warmup, iterations, baseline, trace }: ProfileArguments, session: Session): Promise<number> {
  const model = await session.model();
  const plan = await session.plan(model);
  const usual = defaults[session.device.device];
  const task: ProfileTask = {
    kind: "profile",
    model,
    plan,
    weights: { from: "random", seed: session.seed },
    seed: session.seed,
    warmup: warmup ?? usual.warmup,
    iterations: iterations ?? usual.iterations,
    trace: trace !== undefined,
  };
  const single: ProfileTask = { ...task, plan: singleDevicePlan(plan), trace: false };
  if (session.options.dryRun) {
    await describeRuns(session, model, baseline ? [plan, single.plan] : [plan]);
    return 0;
  }
  const ranks = await measure(session, task);
  const summary = summarizeProfile(task, ranks, session.device);
  session.print(profileTable(summary));
  if (trace !== undefined) await writeOutput(trace, JSON.stringify(chromeTrace(ranks)));
  if (!baseline) {
    await session.emit(summary);
    return 0;
  }
  const alone = summarizeProfile(single, await measure(session, single), session.device);
  const speedup = alone.latencyMs.median / summary.latencyMs.median;
  session.print(profileTable(alone));
  session.print(`Speed-up over one worker: ${figures(speedup)}`);
  await session.emit({ ...summary, baseline: { latencyMs: alone.latencyMs, tflops: alone.tflops, speedup } });
  return 0;
}

async function measure(session: Session, task: ProfileTask) {
  return checkDocument("The workers' results", await session.run(task), z.array(profileRankSchema), exitCodes.internal);
}
