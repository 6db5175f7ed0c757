import { type Choice, comparedMs } from "../plan/planner/choose.js";
import type { Machine } from "../plan/planner/device.js";
import type { Refusal } from "../plan/planner/enumerate.js";
import type { Evaluation } from "../plan/planner/evaluate.js";
import type { Prediction } from "../plan/planner/predict.js";
import { meshName, meshSize } from "../plan/schema.js";
import { figures, threeDigits } from "./figures.js";
import { type Page, prose } from "./page.js";
import { type Column, formatTable } from "./table.js";

/** What is compared of an evaluation. */
const compared = ({ step, forward }: Evaluation): Prediction => step ?? forward;

/** What a plan loses to another in: words for the part of its time that is longer. */
const losses = {
  attention: "in attention",
  products: "in products",
  elementwise: "in norms and other passes",
  communication: "of communication that compute does not hide",
} as const;

/** Why the first plan comes before the second, in a clause: how much faster it is, and what the other has more of. */
export function reasonOf(first: Evaluation, second: Evaluation): string {
  const [a, b] = [compared(first), compared(second)];
  const gain = b.milliseconds / a.milliseconds - 1;
  const other = meshName(second.plan.mesh);
  if (gain < 0.002) return `as fast as ${other}`;
  const parts = (["attention", "products", "elementwise", "communication"] as const)
    .map((name) => ({ name, more: b[name] - a[name] }))
    .sort((x, y) => y.more - x.more);
  const [most] = parts;
  const what = most && most.more > 0 ? `, which has ${threeDigits(most.more)} ms more ${losses[most.name]}` : "";
  return `${threeDigits(100 * gain)} % faster than ${other}${what}`;
}

/** Whose rates a prediction is made with. */
export function ratesSentence({ device, calibrated }: Machine): string {
  return calibrated ? `${device.name}, calibrated here` : `${device.name}, ${device.source}`;
}

/** Whose links it is made with. */
export function linksSentence({ links, hosts }: Machine): string {
  const { gigabytesPerSecond } = links.network;
  return hosts === 1 ? links.source : `${links.source}; between hosts ${gigabytesPerSecond} GB/s a GPU, not measured`;
}

/** A sentence on a mesh that was chosen; undefined where there was no choice. */
export function choiceSentence({ best, ranked, refused, machine }: Choice): string | undefined {
  const { plan } = best;
  if (meshSize(plan.mesh) === 1) return undefined;
  const what = best.step === undefined ? "forward" : "step";
  const second = ranked.find((each) => each !== best);
  const only = refused.length > 0 ? "the only mesh that fits" : "the only mesh";
  const why = second === undefined ? only : reasonOf(best, second);
  return `The planner chose ${meshName(plan.mesh)}: ${figures(comparedMs(best))} ms a ${what} predicted (${machine.device.name}), ${why}.`;
}

/** A forward as it was predicted, beside what was measured. */
export interface ProfilePrediction extends Prediction {
  /** Predicted over measured, less 1. */
  readonly error: number;
  /** Whose rates it was made with, and whether these were measured on this machine. */
  readonly rates: string;
  readonly calibrated: boolean;
}

export function predictionOf(
  forward: Prediction,
  { latencyMs }: { readonly latencyMs: { readonly median: number } },
  { device, calibrated }: Machine,
): ProfilePrediction {
  const error = forward.milliseconds / latencyMs.median - 1;
  return { ...forward, error, rates: device.name, calibrated: calibrated ?? false };
}

/** Predicted beside measured, in a line. */
export function predictedSentence({
  milliseconds,
  error,
  rates,
  calibrated,
  communication,
}: ProfilePrediction): string {
  const apart = `${Math.abs(100 * error).toFixed(1)} % ${error < 0 ? "less" : "more"} than measured`;
  const whose = calibrated ? `${rates} as calibrated` : `${rates}, not calibrated here: ditrun plan --calibrate`;
  return `Predicted: ${figures(milliseconds)} ms, ${apart}; communication ${figures(communication)} ms. Rates: ${whose}.`;
}

/** A row of the table of plans. */
export interface RankedPlan extends Evaluation {
  /** Seconds of a whole video: all steps and the decode. */
  readonly videoSeconds: number | undefined;
  /** How many times as fast as one device. */
  readonly speedup: number;
}

const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);

/** Plans, the fastest first. */
export function planTable(page: Page, rows: readonly RankedPlan[]): string {
  const video = rows.some(({ step }) => step !== undefined);
  const columns: Column<RankedPlan>[] = [
    { head: "", cell: (row) => String(rows.indexOf(row) + 1) },
    { head: "plan", align: "left", cell: ({ plan }) => meshName(plan.mesh) },
    { head: "dtypes", align: "left", cell: ({ plan }) => dtypesOf(plan) },
    { head: video ? "ms a step" : "ms a forward", short: "ms", cell: (row) => figures(comparedMs(row)) },
    {
      head: "s a video",
      short: "video s",
      cell: ({ videoSeconds }) => (videoSeconds === undefined ? "" : figures(videoSeconds)),
    },
    { head: "speed-up", short: "×", cell: ({ speedup }) => `${threeDigits(speedup)} ×` },
    { head: "GiB a GPU", short: "GiB", cell: ({ bytes }) => gib(bytes) },
    {
      head: "GiB at least",
      short: "least",
      drop: 2,
      cell: ({ bytes, leastBytes }) => (leastBytes === bytes ? "" : gib(leastBytes)),
    },
    { head: "communication ms", short: "comm.", cell: (row) => figures(compared(row).communication) },
    { head: "hidden ms", short: "hidden", drop: 1, cell: (row) => figures(compared(row).hidden) },
  ];
  return formatTable(page, columns, rows);
}

/** Why the first plan is first; and where it is in fp8 or fp16, what comes first without. */
export function whyFirst(ranked: readonly Evaluation[]): string {
  const [first] = ranked;
  if (!first) return "none fits.";
  const dtypes = dtypesOf(first.plan);
  const alike = ranked.filter(({ plan }) => dtypesOf(plan) === dtypesOf(first.plan));
  const [, second] = alike;
  const name = `${meshName(first.plan.mesh)} in ${dtypesOf(first.plan)}`;
  const why = second === undefined ? "the only mesh that fits" : reasonOf(first, second);
  const bf16 = ranked.find(({ plan }) => dtypesOf(plan) === "bf16");
  const without =
    !["fp8", "fp16"].includes(dtypes) || !bf16
      ? ""
      : ` In bf16, which is more exact, ${meshName(bf16.plan.mesh)} is first: ${figures(comparedMs(bf16))} ms.`;
  return `${name} is ${why}.${without}`;
}

/** fp8, fp16, or the plan's dtype. */
function dtypesOf({ dtype, linear, attention }: Evaluation["plan"]): string {
  if (linear.dtype === "e4m3" || attention.dtype === "e4m3") return "fp8";
  return attention.dtype === "fp16" ? "fp16" : dtype;
}

/** Refused meshes, those with one reason in one line. */
export function refusedLines(page: Page, refused: readonly Refusal[]): string {
  const byReason = new Map<string, string[]>();
  for (const { plan, why } of refused) {
    const names = byReason.get(why) ?? [];
    const name = meshName(plan.mesh);
    byReason.set(why, names.includes(name) ? names : [...names, name]);
  }
  const lines = [...byReason].map(([why, names]) => {
    const shown = names.length > 4 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
    return prose(page, `${shown}: ${why}`);
  });
  return ["Refused:", ...lines].join("\n");
}

/** What --json has of a ranking, as views/documents.ts publishes it. */
export function planDocument(ranked: readonly RankedPlan[], refused: readonly Refusal[], machine: Machine) {
  const { device, links, calibrated = false, hosts } = machine;
  return {
    ...{ hosts, device, links, calibrated },
    plans: ranked.map((each) => {
      const { attention, products, elementwise, communication, hidden } = compared(each);
      return {
        plan: each.plan,
        forwardMs: each.forward.milliseconds,
        stepMs: each.step?.milliseconds ?? null,
        decodeMs: each.decode?.milliseconds ?? null,
        videoSeconds: each.videoSeconds ?? null,
        speedup: each.speedup,
        ...{ communicationMs: communication, hiddenMs: hidden },
        ...{ attentionMs: attention, productsMs: products, elementwiseMs: elementwise },
        ...{ memoryBytes: each.bytes, leastMemoryBytes: each.leastBytes },
      };
    }),
    refused: refused.map(({ plan, why }) => ({ plan: `${meshName(plan.mesh)} ${dtypesOf(plan)}`, why })),
  };
}
