import { rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { ArgumentsCamelCase, InferredOptionTypes, Options } from "yargs";
import { toFloat32 } from "../../formats/numbers.js";
import { openSafetensors } from "../../formats/safetensors.js";
import { DitrunError, exitCodes } from "../../protocol/failure.js";
import type { ForwardTask } from "../../protocol/job.js";
import type { DitModel } from "../../protocol/model.js";
import type { Plan } from "../../protocol/plan.js";
import { type AccuracyResult, accuracyTable, compareOutputs, type OutputTensor } from "../accuracy-report.js";
import type { Command } from "../command.js";
import { describeRuns } from "../dry-run.js";
import { loadCheckpointModel } from "../model.js";
import { ownOptions } from "../options.js";
import { singleDevicePlan } from "../plan.js";
import type { Session } from "../session.js";
import { withTemporaryFolder } from "../temporary-folder.js";

const options = {
  plans: {
    type: "string",
    requiresArg: true,
    describe: "Several plans, separated by commas [default: the given plan]",
  },
  against: {
    choices: ["same", "fp32"],
    requiresArg: true,
    default: "same",
    describe: "Dtypes of the single-device run: the plan's own, or float32",
  },
  weights: {
    type: "string",
    requiresArg: true,
    describe: "Folder with config.json and model.safetensors [default: random]",
  },
  reference: {
    type: "string",
    requiresArg: true,
    describe: "Safetensors file with inputs img, t, y and the expected output, instead of a single-device run",
  },
} as const satisfies Record<string, Options>;

type AccuracyArguments = ArgumentsCamelCase<InferredOptionTypes<typeof options>>;

/** Compare a plan's output with the single-device model's, or with a recorded one; exit code 1 above the tolerance. */
export const accuracy: Command = {
  name: "accuracy",
  example: { command: "$0 accuracy --plans cp2,tp2,cp4-tp2", describe: "Three plans, each against one device" },
  register: (parser, select) =>
    parser.command(
      accuracy.name,
      "Compare a plan's output with the single-device model's, or with a recorded one; exit code 1 above the tolerance",
      (command) =>
        command
          .options(options)
          .group(Object.keys(options), ownOptions)
          .example(accuracy.example.command, accuracy.example.describe),
      (chosen) => select(chosen, (session) => run(chosen, session)),
    ),
};

async function run(
  { plans: names, against, weights, reference }: AccuracyArguments,
  session: Session,
): Promise<number> {
  if (weights !== undefined && session.options.model !== undefined) {
    throw new DitrunError("--weights brings its own model in its config.json: leave out --model.");
  }
  if (reference !== undefined && weights === undefined) {
    throw new DitrunError("--reference needs the weights it was recorded with: give --weights DIR too.");
  }
  const model = weights === undefined ? await session.model() : await loadCheckpointModel(weights);
  const plans = await choosePlans(session, model, names);
  const alone = (plan: Plan) => singleDevicePlan(against === "fp32" ? inFloat32(plan) : plan);
  if (session.options.dryRun) {
    await describeRuns(session, model, reference === undefined ? plans.flatMap((plan) => [plan, alone(plan)]) : plans);
    return 0;
  }
  const expected = reference === undefined ? undefined : await readOutput(reference);
  return withTemporaryFolder("accuracy", async (folder) => {
    const forward = outputOf(session, model, weights, reference, folder);
    const references = new Map<string, OutputTensor>();
    const results: AccuracyResult[] = [];
    for (const plan of plans) {
      const actual = await forward(plan);
      // Plans that differ only in their mesh have one single-device run in common.
      const key = JSON.stringify(alone(plan));
      const wanted = expected ?? references.get(key) ?? (await forward(alone(plan)));
      references.set(key, wanted);
      results.push(compareOutputs(plan, actual, wanted));
    }
    const other = against === "fp32" ? "one device in float32" : "one device";
    session.print(accuracyTable(results, reference === undefined ? other : `output in ${reference}`));
    await session.emit({ results });
    return results.every(({ pass }) => pass) ? exitCodes.ok : exitCodes.mismatch;
  });
}

async function choosePlans(session: Session, model: DitModel, names: string | undefined): Promise<Plan[]> {
  const { options } = session;
  if (names === undefined) return [await session.plan(model)];
  if ([options.plan, options.cfg, options.cp, options.tp].some((flag) => flag !== undefined)) {
    throw new DitrunError("--plans names whole plans: leave out --plan, --cfg, --cp and --tp.");
  }
  const list = names.split(",").map((name) => name.trim());
  const { dtype, fp8, attention } = options;
  return Promise.all(list.map((plan) => session.plan(model, { plan, dtype, fp8, attention })));
}

function inFloat32(plan: Plan): Plan {
  const { linear: _linear, ...rest } = plan;
  return {
    ...rest,
    dtype: "fp32",
    linear: {},
    attention: { kernel: plan.attention.kernel },
    ring: { transport: plan.ring.transport },
  };
}

/** How to get the output of one forward under a plan, by way of a file that rank 0 writes. */
function outputOf(
  session: Session,
  model: DitModel,
  weights: string | undefined,
  inputs: string | undefined,
  folder: string,
) {
  let runs = 0;
  return async (plan: Plan): Promise<OutputTensor> => {
    const output = join(folder, `${runs++}.safetensors`);
    const task: ForwardTask = {
      kind: "forward",
      model,
      plan,
      weights:
        weights === undefined
          ? { from: "random", seed: session.seed }
          : { from: "directory", directory: resolve(weights) },
      seed: session.seed,
      output,
      ...(inputs === undefined ? {} : { inputs: resolve(inputs) }),
    };
    await session.run(task);
    const tensor = await readOutput(output);
    await rm(output);
    return tensor;
  };
}

async function readOutput(path: string): Promise<OutputTensor> {
  const file = await openSafetensors(path);
  try {
    const { dtype, shape } = file.info("output");
    return { shape, data: toFloat32(dtype, await file.read("output")) };
  } finally {
    await file.close();
  }
}
