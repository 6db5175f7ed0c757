import { DitrunError } from "../failure.js";
import type { Model } from "../models/schema.js";
import { describeDtypes, planPrecision } from "../plan/names.js";
import type { Plan } from "../plan/schema.js";
import { firstApart, type LayerError, type LayerTensor, layerErrors } from "./layer-errors.js";
import { type Page, paint, prose } from "./page.js";
import { difference } from "./statistics.js";
import { type Column, formatTable } from "./table.js";
import { type OutputTensor, tokenDifferences } from "./token-differences.js";

export type { OutputTensor } from "./token-differences.js";

/** What a comparison may find: a layout alone changes the order of roundings, a dtype changes what is rounded. */
export type Comparison = "layout" | "arithmetic";

/** Each is relative: to the norm of the output, or to the root mean square length of a token. */
export interface Measures {
  /** ‖actual - expected‖ / ‖expected‖. */
  relL2: number;
  /** As tokenDifferences. */
  region: number;
  token: number;
}
const measureNames = ["relL2", "region", "token"] as const satisfies readonly (keyof Measures)[];

/**
 * About three times what is right, by the coarsest arithmetic of the plan (fp16 attention is bf16's: the rest of such a plan is in
 * bf16). `region` is the part of rounding that is alike in all tokens; the other part averages out (limitsOf). None grows with
 * tokens, width or depth: rounding is relative to what is rounded, and the weights keep what blocks add to the stream in proportion.
 * bench/NOTES.md, "What accuracy sees", has what was measured of right plans and of broken ones.
 */
const limits: Readonly<Record<Comparison, Readonly<Record<"fp32" | "bf16" | "e4m3", Measures>>>> = {
  layout: {
    fp32: { relL2: 1e-5, region: 2e-6, token: 2e-5 },
    bf16: { relL2: 1e-2, region: 3e-3, token: 1.5e-2 },
    e4m3: { relL2: 0.13, region: 0.035, token: 0.2 },
  },
  arithmetic: {
    fp32: { relL2: 1e-5, region: 1e-5, token: 3e-5 },
    bf16: { relL2: 0.015, region: 0.01, token: 0.025 },
    e4m3: { relL2: 0.19, region: 0.15, token: 0.27 },
  },
};

/** The limits of a plan for outputs with so many tokens in a region: a mean over n tokens keeps 1/√n of what is random in each (half of relL2's limit). */
export function limitsOf(plan: Plan, comparison: Comparison, tokensOfRegion: number): Measures {
  const { relL2, region, token } = limits[comparison][planPrecision(plan)];
  return { relL2, region: region + relL2 / (2 * Math.sqrt(tokensOfRegion)), token };
}

export interface AccuracyResult {
  plan: string;
  /** The plan's dtype, and which parts are in another. */
  dtypes: string;
  comparison: Comparison;
  /** Null where the output holds values that are not finite. */
  measures: Measures | null;
  limits: Measures;
  meanAbs: number | null;
  maxAbs: number | null;
  stdAbs: number | null;
  relL2: number | null;
  /** Values of the output that are NaN or infinite. */
  nonFinite: number;
  pass: boolean;
  /** With --layers: how far both are apart after each layer, and the first one that is above the limit of relL2. */
  layers?: LayerError[];
  firstLayer?: string | null;
}

/** The same with what both runs have told of their layers. */
export function withLayers(
  result: AccuracyResult,
  actual: readonly LayerTensor[],
  expected: readonly LayerTensor[],
): AccuracyResult {
  const layers = layerErrors(actual, expected);
  const first = firstApart(layers, result.limits.relL2);
  return { ...result, layers, firstLayer: first === undefined ? null : `${first.layer}, ${first.slot}` };
}

/** A row for each layer, a column for each comparison; and where each parts from what it is compared with. */
export function layersTable(page: Page, results: readonly AccuracyResult[]): string {
  const sampled = results.flatMap((result) => (result.layers ? [{ ...result, layers: result.layers }] : []));
  const [first] = sampled;
  if (!first) return "";
  const rows = first.layers.map(({ layer, slot }, place) => ({ layer, slot, place }));
  const columns: Column<(typeof rows)[number]>[] = [
    { head: "layer", align: "left", cell: ({ layer }) => layer },
    { head: "text", align: "left", drop: 1, cell: ({ slot }) => slot },
    ...sampled.map(({ plan, comparison, layers }) => ({
      head: comparison === "layout" ? plan : `${plan}, fp32`,
      cell: ({ place }: (typeof rows)[number]) =>
        layers[place]?.relL2 === 0 ? "equal" : (layers[place]?.relL2?.toExponential(1) ?? "NaN"),
    })),
  ];
  const parted = sampled.map(({ plan, firstLayer, limits: { relL2 } }) =>
    firstLayer === null
      ? `${plan}: no layer is above ${relL2.toExponential(1)}.`
      : `${plan} parts at ${firstLayer}: the first layer above ${relL2.toExponential(1)}.`,
  );
  return [
    paint(page, "bold", prose(page, "Relative difference after each layer, of 32 tokens")),
    formatTable(page, columns, rows),
    ...parted.map((sentence) => prose(page, sentence)),
  ].join("\n");
}

/**
 * Compares a plan's output with the expected one.
 * @throws DitrunError when the shapes differ, or when what was expected is not finite.
 */
export function compareOutputs(
  model: Model,
  plan: Plan,
  comparison: Comparison,
  actual: OutputTensor,
  expected: OutputTensor,
): AccuracyResult {
  if (actual.shape.join() !== expected.shape.join()) {
    throw new DitrunError(
      "ERR_TENSOR_SHAPE",
      `The output of plan ${plan.name} has shape [${actual.shape.join(", ")}], the reference [${expected.shape.join(", ")}].`,
    );
  }
  const bad = countNonFinite(expected.data);
  if (bad > 0) {
    throw new DitrunError(
      "ERR_NOT_FINITE",
      `The reference for plan ${plan.name} holds ${bad} values that are NaN or infinite, so nothing can be compared with it.`,
    );
  }
  const nonFinite = countNonFinite(actual.data);
  const { tokensOfRegion, region, token } = tokenDifferences(model, actual, expected);
  const limits = limitsOf(plan, comparison, tokensOfRegion);
  const all = { plan: plan.name ?? "", dtypes: describeDtypes(plan), comparison, limits, nonFinite };
  if (nonFinite > 0) {
    return { ...all, measures: null, meanAbs: null, maxAbs: null, stdAbs: null, relL2: null, pass: false };
  }
  const apart = difference(actual.data, expected.data);
  const measures = { relL2: apart.relL2, region, token };
  return { ...all, ...apart, measures, pass: measureNames.every((name) => measures[name] <= limits[name]) };
}

function countNonFinite(data: Float32Array): number {
  let count = 0;
  for (const value of data) if (!Number.isFinite(value)) count++;
  return count;
}

/** A row per comparison, and a sentence for each that failed. @param reference what the plans are compared with. */
export function accuracyTable(
  page: Page,
  model: string,
  device: string,
  results: readonly AccuracyResult[],
  reference: string,
): string {
  const measure = (name: keyof Measures, head: string): Column<AccuracyResult> => ({
    head,
    cell: ({ measures }) => measures?.[name].toExponential(1) ?? "NaN",
  });
  const columns: Column<AccuracyResult>[] = [
    { head: "plan", align: "left", cell: ({ plan }) => plan },
    {
      head: "compared with",
      short: "beside",
      align: "left",
      cell: ({ comparison }) => (comparison === "layout" || reference !== "one device" ? reference : "fp32"),
    },
    measure("relL2", "rel L2"),
    measure("region", "region"),
    measure("token", "token"),
    {
      head: "of limit",
      cell: ({ measures, limits }) =>
        measures === null
          ? ""
          : `${(100 * Math.max(...measureNames.map((name) => measures[name] / limits[name]))).toFixed(0)} %`,
    },
    {
      head: "result",
      align: "left",
      cell: ({ pass }) => paint(page, pass ? "green" : ["bold", "red"], pass ? "pass" : "FAIL"),
    },
  ];
  // A plan whose name says its dtype needs no line that says it again.
  const dtypes = new Map(
    results.flatMap(({ plan, dtypes }) => (plan.endsWith(` ${dtypes}`) ? [] : [[plan, dtypes] as const])),
  );
  return [
    paint(page, "bold", prose(page, `${model} on ${device}: relative differences of the output`)),
    formatTable(page, columns, results),
    prose(page, "rel L2: of all of it; region: of its worst region; token: of its worst token."),
    ...[...dtypes].map(([plan, parts]) => prose(page, `${plan}: ${parts}`)),
    ...results.filter(({ pass }) => !pass).map((result) => prose(page, failureSentence(result))),
  ].join("\n");
}

const measureTexts: Readonly<Record<keyof Measures, string>> = {
  relL2: "a relative L2",
  region: "a mean of a region",
  token: "a token",
};

function failureSentence({ plan, nonFinite, measures, limits }: AccuracyResult): string {
  if (measures === null) return `The output of plan ${plan} holds ${nonFinite} values that are NaN or infinite.`;
  const above = measureNames.filter((name) => !(measures[name] <= limits[name]));
  const parts = above.map(
    (name) => `${measureTexts[name]} of ${measures[name].toExponential(2)} (limit ${limits[name].toExponential(1)})`,
  );
  return `The output of plan ${plan} is off by ${parts.join(", ")}.`;
}
