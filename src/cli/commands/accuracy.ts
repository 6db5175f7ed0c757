import { rm } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { DitrunError, exitCodes } from "../../failure.js";
import type { NamedFile } from "../../files/apart.js";
import { withTemporaryFolder } from "../../files/temporary-folder.js";
import { toFloat32 } from "../../formats/numbers.js";
import { openSafetensors } from "../../formats/safetensors.js";
import { tokenCount } from "../../models/cost.js";
import { loadCheckpointModel } from "../../models/load.js";
import { isWan } from "../../models/registry.js";
import { type LatentSize, type Model, wanTokens } from "../../models/schema.js";
import { type FoundModel, findModel } from "../../models/wan/find-model.js";
import { latentOf } from "../../models/wan/video-size.js";
import { planPrecision } from "../../plan/names.js";
import { singleDevicePlan } from "../../plan/resolve.js";
import { meshSize, type Plan } from "../../plan/schema.js";
import type { ForwardTask, WanAccuracyTask } from "../../protocol/job.js";
import {
  type AccuracyResult,
  accuracyTable,
  type Comparison,
  compareOutputs,
  layersTable,
  type OutputTensor,
  withLayers,
} from "../../views/accuracy-report.js";
import { accuracyPage } from "../../views/html/accuracy-page.js";
import type { LayerTensor } from "../../views/layer-errors.js";
import { accuracyVerdict } from "../../views/verdict.js";
import type { Body } from "../command.js";
import { describeRuns } from "../dry-run.js";
import { endOnInterrupt } from "../interrupts.js";
import { ModelSession } from "../model-session.js";
import { reads, writes } from "../named-files.js";
import type { AccuracyOptions, WanAccuracyOptions } from "../options/accuracy.js";
import type { ModelRun } from "../options/model-run.js";
import { checkReports, writeReport } from "../reports.js";
import { showRun } from "../show-progress.js";
import { chosenVideo, chosenWan } from "../wan-options.js";

type WanChosen = WanAccuracyOptions & ModelRun;
type Chosen = AccuracyOptions & ModelRun;

/** `ditrun accuracy`. */
export const accuracy: Body<Chosen> = {
  files: accuracyFiles,
  run: async (chosen, context) => run(chosen, await ModelSession.open(chosen, context)),
};

/** `ditrun wan accuracy`. */
export const wanAccuracy: Body<WanChosen> = {
  files: accuracyFiles,
  run: async (chosen, context) => runWanAccuracy(chosen, await ModelSession.open(chosen, context)),
};

/** The files that its options name; `ditrun wan accuracy` has --plans alone. */
function accuracyFiles({ plans, weights, reference, html }: Partial<AccuracyOptions>): NamedFile[] {
  return [
    ...writes({ "--html": html }),
    ...reads({ "--weights": weights, "--reference": reference }),
    ...(plans === undefined ? [] : namesIn(plans).flatMap((plan) => reads({ "--plans": plan }))),
  ];
}

const namesIn = (plans: string): string[] => plans.split(",").map((name) => name.trim());

/** `ditrun wan accuracy`: the same for Wan's transformer, by default for the model that the other commands of wan take. */
async function runWanAccuracy(chosen: WanChosen, session: ModelSession): Promise<number> {
  const found = await chosenWan(session);
  const { name, model } = found;
  if (!isWan(model)) {
    throw new DitrunError(
      "ERR_MODEL_KIND",
      `This command compares Wan 2.1, but ${name} is a ${model.kind} model: use ditrun accuracy.`,
    );
  }
  return run({ ...chosen, weights: undefined, reference: undefined }, session, found);
}

/** Of the smallest model, whose own videos have 72 tokens: too few for rounding to average out over a sixteenth of them. */
const enoughTokens = { size: "192*128", frames: 17 };

/** What is compared, and how one forward of it is asked for. */
interface Subject {
  readonly model: Model;
  readonly tokens: number;
  /** Of a video's latent. */
  readonly size?: LatentSize;
  task(plan: Plan, output: string): ForwardTask | WanAccuracyTask;
}

/** A comparison to make: a plan's output with that of the same plan on one device, perhaps in float32, or with a recorded one. */
interface Pair {
  readonly plan: Plan;
  readonly comparison: Comparison;
  readonly other: Plan | undefined;
}

async function run(chosen: AccuracyOptions, session: ModelSession, found?: FoundModel): Promise<number> {
  const { weights, reference } = chosen;
  if (weights !== undefined && session.options.model !== undefined) {
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      "--weights brings its own model in its config.json: leave out --model.",
    );
  }
  if (reference !== undefined && weights === undefined) {
    throw new DitrunError(
      "ERR_OPTION_CONFLICT",
      "--reference needs the weights it was recorded with: give --weights DIR too.",
    );
  }
  if (reference !== undefined && chosen.against !== undefined) {
    throw new DitrunError("ERR_OPTION_CONFLICT", "--reference is what plans are compared with: leave out --against.");
  }
  if (reference !== undefined && chosen.layers) {
    throw new DitrunError("ERR_OPTION_CONFLICT", "--reference holds an output and no layers: leave out --layers.");
  }
  await checkReports({ html: chosen.html });
  const subject = await subjectOf(chosen, session, found);
  const { model, tokens } = subject;
  const pairs = pairsOf(await choosePlans(session, subject, chosen.plans), chosen);
  if (session.options.dryRun) {
    await describeRuns(session, model, runsOf(pairs), { tokens });
    return exitCodes.ok;
  }
  const recorded = reference === undefined ? undefined : await readOutput(reference);
  return withTemporaryFolder("accuracy", endOnInterrupt, async (folder) => {
    const forward = async (plan: Plan): Promise<Output> => {
      const file = join(folder, "output.safetensors");
      const runs = { done: done++, total: wanted };
      await showRun(session, `plan ${plan.name ?? ""}`, runs, () =>
        session.run({ ...subject.task(plan, file), layers: chosen.layers }),
      );
      const output = await readOutput(file);
      await rm(file);
      return output;
    };
    const wanted = runsOf(pairs).length;
    let done = 0;
    const alone = new Map<string, Output>();
    const once = async (plan: Plan): Promise<Output> => {
      const output = alone.get(keyOf(plan)) ?? (await forward(plan));
      if (meshSize(plan.mesh) === 1) alone.set(keyOf(plan), output);
      return output;
    };
    const results: AccuracyResult[] = [];
    for (const { plan, comparison, other } of pairs) {
      const actual = await (comparison === "layout" ? forward(plan) : once(plan));
      const expected = other === undefined ? recorded : await once(other);
      if (!expected) throw new Error("A pair without another plan has a recorded output.");
      const result = compareOutputs(model, plan, comparison, actual, expected);
      results.push(chosen.layers ? withLayers(result, actual.layers, expected.layers) : result);
    }
    const { device } = session.device;
    const compared = reference === undefined ? "one device" : basename(reference);
    session.print(`${accuracyTable(session.page, model.name, device, results, compared)}\n`);
    if (chosen.layers) session.print(`${layersTable(session.page, results)}\n`);
    const pass = results.every((result) => result.pass);
    const verdict = accuracyVerdict(results);
    session.printVerdict(verdict, pass ? "green" : "red");
    const { html } = chosen;
    if (html !== undefined) {
      const report = { model: model.name, device, results, verdict };
      await writeReport(session, html, (made) => accuracyPage({ ...report, made }));
    }
    const of = (comparison: Comparison) => results.filter((result) => result.comparison === comparison);
    const isPlans = chosen.against === "fp32" || reference !== undefined;
    await session.emit({
      model,
      device,
      plans: [...new Set(pairs.map(({ plan }) => plan))],
      pass,
      verdict,
      weights: weights ?? "random",
      reference: reference ?? (chosen.against === "fp32" ? "one device, fp32" : "one device"),
      results: isPlans ? results : of("layout"),
      arithmetic: isPlans ? [] : of("arithmetic"),
    });
    return pass ? exitCodes.ok : exitCodes.mismatch;
  });
}

/** By what a run computes, whatever its plan is called. */
const keyOf = ({ name: _name, ...plan }: Plan): string => JSON.stringify(plan);

/** Each plan with one device; then, unless told otherwise, one device in each of their dtypes with one in float32. */
function pairsOf(plans: readonly Plan[], { against, reference }: AccuracyOptions): Pair[] {
  if (reference !== undefined) return plans.map((plan) => ({ plan, comparison: "arithmetic", other: undefined }));
  const exact = (plan: Plan) => singleDevicePlan(inFloat32(plan));
  if (against === "fp32") return plans.map((plan) => ({ plan, comparison: "arithmetic", other: exact(plan) }));
  const layouts = plans.map((plan): Pair => ({ plan, comparison: "layout", other: singleDevicePlan(plan) }));
  if (against === "same") return layouts;
  const rounded = plans.map(singleDevicePlan).filter((plan) => planPrecision(plan) !== "fp32");
  const alone = new Map(rounded.map((plan) => [keyOf(plan), plan])).values();
  return [...layouts, ...[...alone].map((plan): Pair => ({ plan, comparison: "arithmetic", other: exact(plan) }))];
}

/** The forwards that the pairs need: one for each layout, and one for each plan that others are compared with. */
function runsOf(pairs: readonly Pair[]): Plan[] {
  const known = new Set<string>();
  return pairs.flatMap(({ plan, comparison, other }) => {
    const runs = [plan, ...(other ? [other] : [])].filter(
      (run) => (run === plan && comparison === "layout") || !known.has(keyOf(run)),
    );
    for (const run of runs) if (run !== plan || comparison !== "layout") known.add(keyOf(run));
    return runs;
  });
}

async function subjectOf(chosen: AccuracyOptions, session: ModelSession, wanted?: FoundModel): Promise<Subject> {
  const { seed } = session;
  const { weights, reference } = chosen;
  const name = session.options.model;
  const found = wanted ?? (name === undefined ? undefined : await findModel(name));
  const preset = found?.preset;
  const model = weights === undefined ? (found?.model ?? (await session.model())) : await loadCheckpointModel(weights);
  if (isWan(model)) {
    const video = chosenVideo(chosen, preset?.name === "tiny" ? { ...preset, ...enoughTokens } : preset);
    const size = latentOf(video.size, video.frames);
    const task = (plan: Plan, output: string) => ({ kind: "wan-accuracy", model, plan, size, seed, output }) as const;
    return { model, tokens: wanTokens(model, size), size, task };
  }
  for (const option of ["size", "frames"] as const) {
    if (chosen[option] !== undefined) {
      throw new DitrunError(
        "ERR_OPTION_CONFLICT",
        `--${option} is of a video, but ${model.name} makes images: leave it out.`,
      );
    }
  }
  const from =
    weights === undefined
      ? ({ from: "random", seed, wide: true } as const)
      : ({ from: "directory", directory: resolve(weights) } as const);
  const inputs = reference === undefined ? {} : { inputs: resolve(reference) };
  const task = (plan: Plan, output: string): ForwardTask => ({
    ...{ kind: "forward", model, plan, weights: from, seed, output },
    ...inputs,
  });
  return { model, tokens: tokenCount(model), task };
}

async function choosePlans(
  session: ModelSession,
  { model, size }: Subject,
  names: string | undefined,
): Promise<Plan[]> {
  const { options } = session;
  if (names === undefined) return [await session.plan(model, options, { size })];
  if ([options.plan, options.cfg, options.cp, options.tp].some((flag) => flag !== undefined)) {
    throw new DitrunError("ERR_OPTION_CONFLICT", "--plans names whole plans: leave out --plan, --cfg, --cp and --tp.");
  }
  const { dtype, fp8, attention } = options;
  return Promise.all(namesIn(names).map((plan) => session.plan(model, { plan, dtype, fp8, attention }, { size })));
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

/** A run's output, and what it has told of its layers. */
interface Output extends OutputTensor {
  readonly layers: readonly LayerTensor[];
}

async function readOutput(path: string): Promise<Output> {
  const file = await openSafetensors(path);
  try {
    const read = async (name: string) => toFloat32(file.info(name).dtype, await file.read(name));
    const layers: LayerTensor[] = [];
    for (const name of file
      .names()
      .filter((name) => name.startsWith("layer."))
      .sort()) {
      layers.push({ name, data: await read(name) });
    }
    return { shape: file.info("output").shape, data: await read("output"), layers };
  } finally {
    await file.close();
  }
}
