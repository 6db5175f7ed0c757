import { stringify } from "yaml";
import { chooseDevice } from "../../engine/choose-device.js";
import { machineFor } from "../../engine/machine.js";
import { DitrunError, exitCodes } from "../../failure.js";
import type { NamedFile } from "../../files/apart.js";
import { readDocument } from "../../files/documents.js";
import { checkOutputFile, writeOutput } from "../../files/output-file.js";
import { mostWorkers } from "../../limits.js";
import { tokenCount } from "../../models/cost.js";
import type { LatentSize, Model } from "../../models/schema.js";
import { findModel } from "../../models/wan/find-model.js";
import { published, type WanPreset } from "../../models/wan/presets.js";
import { latentOf } from "../../models/wan/video-size.js";
import { comparedMs, fastestFirst, type Ranking, rankPlans } from "../../plan/planner/choose.js";
import { deviceFileSchema, type Machine } from "../../plan/planner/device.js";
import { devices } from "../../plan/planner/devices.js";
import { evaluate } from "../../plan/planner/evaluate.js";
import { singleDevicePlan } from "../../plan/resolve.js";
import { type Plan, type PlanDocument, planSchema } from "../../plan/schema.js";
import { counted } from "../../text.js";
import { pageOf, paint, prose } from "../../views/page.js";
import {
  linksSentence,
  planDocument,
  planTable,
  type RankedPlan,
  ratesSentence,
  refusedLines,
  whyFirst,
} from "../../views/plan-report.js";
import { calibrate } from "../calibrate.js";
import type { Body, Context } from "../command.js";
import { reads, writes } from "../named-files.js";
import type { PlanDtype, PlanOptions } from "../options/plan.js";
import { sessionLog } from "../session-log.js";
import { chosenVideo } from "../wan-options.js";

/** `ditrun plan`: every mesh of so many workers, ranked by what it is expected to take. Nothing runs but what --calibrate measures. */
export const plan: Body<PlanOptions> = { files: planFiles, run };

function planFiles({ gpu, out }: PlanOptions): NamedFile[] {
  return [...reads({ "--gpu": gpu !== undefined && isFile(gpu) ? gpu : undefined }), ...writes({ "--out": out })];
}

const isFile = (gpu: string) => /\.(?:ya?ml|json)$/.test(gpu) || gpu.includes("/");

/** What plans are ranked for. */
interface Subject {
  readonly model: Model;
  readonly size: LatentSize | undefined;
  /** Of a video. */
  readonly steps: number;
}

async function run(chosen: PlanOptions, context: Context): Promise<number> {
  const { out, top } = chosen;
  if (out !== undefined) await checkOutputFile(out, false);
  if (chosen.calibrate) {
    await calibrate(chosen, context);
    if (chosen.model === undefined) return exitCodes.ok;
  }
  const subject = await subjectOf(chosen);
  const { machine, workers } = await machineOfLine(chosen);
  const { ranked, refused } = rankAll(chosen, subject, machine, workers);
  const [first] = ranked;
  const stream = chosen.json === undefined ? process.stdout : process.stderr;
  const page = pageOf(stream, process.env);
  const print = (text: string) => {
    if (!chosen.quiet) stream.write(`${text}\n`);
  };
  const on = `${counted(workers, "worker")}${machine.hosts > 1 ? ` on ${counted(machine.hosts, "host")}` : ""}`;
  const tokens = tokenCount(subject.model, subject.size);
  print(paint(page, "bold", prose(page, `${subject.model.name}, ${tokens} tokens, ${on}`)));
  print(prose(page, `Rates: ${ratesSentence(machine)}. Links: ${linksSentence(machine)}.`));
  if (first) {
    print(`\n${planTable(page, ranked.slice(0, top))}`);
    if (ranked.length > top)
      print(prose(page, `${counted(ranked.length - top, "plan")} more: --top ${ranked.length}.`));
  }
  if (refused.length > 0) print(`\n${refusedLines(page, refused)}`);
  const verdict = first ? whyFirst(ranked) : `no plan of ${on} can run ${subject.model.name}.`;
  print(`\n${prose(page, `${paint(page, "bold", "Verdict:")} ${verdict}`)}`);
  if (first && out !== undefined) {
    await writeOutput(out, fileOf(first, verdict));
    print(prose(page, `The first plan is in ${out}: ditrun … --plan ${out}.`));
  }
  await context.document.write({
    ...{ command: context.command, model: subject.model, tokens, workers, verdict },
    steps: subject.size === undefined ? null : subject.steps,
    ...planDocument(ranked, refused, machine),
  });
  if (!first) throw new DitrunError("ERR_PLAN_MESH", verdict.charAt(0).toUpperCase() + verdict.slice(1));
  return exitCodes.ok;
}

async function subjectOf(chosen: PlanOptions): Promise<Subject> {
  const { model, preset } = await findModel(chosen.model ?? "dit");
  if (!makesVideos(model)) {
    for (const option of ["size", "frames", "steps"] as const) {
      if (chosen[option] === undefined) continue;
      throw new DitrunError(
        "ERR_OPTION_CONFLICT",
        `--${option} is of a video, but ${model.name} makes images: leave it out.`,
      );
    }
    return { model, size: undefined, steps: 1 };
  }
  const video = chosenVideo(chosen, preset);
  return { model, size: latentOf(video.size, video.frames), steps: stepsOf(chosen, preset) };
}

const stepsOf = ({ steps }: PlanOptions, preset: WanPreset | undefined) => steps ?? preset?.steps ?? published.steps;

const makesVideos = (model: Model) =>
  evaluate(model, planSchema.parse({}), { ...devices.h200, devicesPerHost: 1, hosts: 1 }).step !== undefined;

/** What --gpu names, else the GPUs at hand, else a host of H200. @throws DitrunError for a name that is none, and a file that is not valid. */
async function machineOfLine(chosen: PlanOptions): Promise<{ readonly machine: Machine; readonly workers: number }> {
  const { gpu, nproc, hosts } = chosen;
  const placed = (perHost: number) => ({ devicesPerHost: perHost, hosts });
  const workersOf = (perHost: number) => {
    const workers = perHost * hosts;
    if (workers <= mostWorkers) return workers;
    throw new DitrunError(
      "ERR_NPROC",
      `--nproc ${perHost} on each of ${hosts} hosts makes ${workers} workers, and a job has at most ${mostWorkers}.`,
    );
  };
  if (gpu !== undefined && isFile(gpu)) {
    const found = await readDocument(gpu, deviceFileSchema);
    return { machine: { ...found, ...placed(nproc ?? 8) }, workers: workersOf(nproc ?? 8) };
  }
  if (gpu !== undefined) {
    const name = gpu.toLowerCase();
    const known = Object.entries(devices).find(([each]) => each === name)?.[1];
    if (!known) {
      throw new DitrunError(
        "ERR_OPTION_VALUE",
        `--gpu is "${gpu}"; it must be one of ${Object.keys(devices).join(", ")}, or a file that ends in .yaml or .json.`,
      );
    }
    const perHost = nproc ?? (name === "cpu" ? 2 : 8);
    return { machine: { ...known, ...placed(name === "cpu" ? 1 : perHost) }, workers: workersOf(perHost) };
  }
  const device = await chooseDevice(chosen.device, sessionLog(chosen));
  if (device.device === "cpu" && chosen.device === "auto" && !chosen.calibrate) {
    return { machine: { ...devices.h200, ...placed(nproc ?? 8) }, workers: workersOf(nproc ?? 8) };
  }
  const machine = await machineFor(device, hosts, process.env);
  return { machine, workers: workersOf(nproc ?? (device.device === "cpu" ? 2 : device.count)) };
}

/** What a plan's name says of its dtypes. */
const documents: Readonly<Record<PlanDtype, PlanDocument>> = {
  bf16: {},
  fp16: { attention: { dtype: "fp16" } },
  fp8: { linear: { dtype: "e4m3" }, attention: { dtype: "e4m3" } },
  fp32: { dtype: "fp32" },
};

/** Ranks all dtypes together; what nobody asked for and cannot be is left out without a word. */
function rankAll(
  { dtype }: PlanOptions,
  { model, size, steps }: Subject,
  machine: Machine,
  workers: number,
): Omit<Ranking, "ranked"> & { readonly ranked: readonly RankedPlan[] } {
  const wanted = dtype ?? (["bf16", "fp16", "fp8"] as const);
  const rankings = wanted.map((each) => {
    const base = planSchema.parse(documents[each]);
    return { each, base, ...rankPlans({ model, plan: base, workers, machine, size }) };
  });
  const shown = rankings.filter(({ each, ranked }) => dtype !== undefined || each === "bf16" || ranked.length > 0);
  const ranked = fastestFirst(shown.flatMap(({ base, ranked: own }) => own.map((each) => withGains(each, base))));
  return { ranked, refused: shown.flatMap(({ refused }) => refused) };

  function withGains(each: Ranking["ranked"][number], base: Plan): RankedPlan {
    const alone = evaluate(model, singleDevicePlan(base), { ...machine, hosts: 1 }, size);
    const { step, decode } = each;
    return {
      ...each,
      videoSeconds: step && decode && (steps * step.milliseconds + decode.milliseconds) / 1e3,
      speedup: comparedMs(alone) / comparedMs(each),
    };
  }
}

/** The plan as a file that --plan reads. */
function fileOf({ plan: found }: RankedPlan, verdict: string): string {
  const { name: _name, mesh, dtype, linear, attention } = found;
  const document: PlanDocument = {
    mesh,
    ...(dtype === "bf16" ? {} : { dtype }),
    ...(linear.dtype === undefined ? {} : { linear: { dtype: linear.dtype } }),
    ...(attention.dtype === undefined ? {} : { attention: { dtype: attention.dtype } }),
  };
  return `# Chosen by ditrun plan: ${verdict}\n${stringify(document)}`;
}
