import type { AccuracyResult } from "../accuracy-report.js";
import { environmentSection, type Made, madeBy } from "./facts.js";
import { lineChart } from "./line-chart.js";
import { html, type Markup } from "./markup.js";
import { reportPage, section, table } from "./page.js";

export interface AccuracyPage {
  readonly model: string;
  readonly device: string;
  readonly results: readonly AccuracyResult[];
  readonly verdict: string;
  readonly made: Made;
}

const beside = ({ comparison }: AccuracyResult) => (comparison === "layout" ? "one device" : "fp32");
const exponential = (value: number | undefined) => value?.toExponential(1) ?? "NaN";

/** How closely plans agree, as one HTML document. */
export function accuracyPage({ model, device, results, verdict, made }: AccuracyPage): string {
  const failed = results.filter(({ pass }) => !pass).length;
  const rows = results.map((result) => [
    ...[result.plan, beside(result), exponential(result.measures?.relL2), exponential(result.measures?.region)],
    exponential(result.measures?.token),
    html`<span class="${result.pass ? "down" : "up"}">${result.pass ? "pass" : "FAIL"}</span>`,
  ]);
  return reportPage({
    ...{ command: "accuracy", title: `${model} on ${device}`, verdict, made: madeBy(made) },
    headlines: [
      { name: "comparisons", value: String(results.length) },
      { name: "failed", value: String(failed) },
    ],
    sections: [
      section(
        "results",
        "Plan by plan",
        "Relative differences of the output: all of it, its worst region, its worst token.",
        table(["plan", "compared with", "rel L2", "region", "token", "result"], rows, [0]),
      ),
      layersSection(results),
      environmentSection(made, []),
    ],
  });
}

function layersSection(results: readonly AccuracyResult[]): Markup | undefined {
  const sampled = results.flatMap((result) => (result.layers ? [{ ...result, layers: result.layers }] : []));
  const [first] = sampled;
  if (!first) return undefined;
  const labels = first.layers.map(({ layer, slot }) => `${layer}, ${slot}`);
  const limits = new Set(sampled.map(({ limits: { relL2 } }) => relL2));
  const [limit] = limits;
  const name = (result: AccuracyResult) => `${result.plan}, beside ${beside(result)}`;
  const chart = lineChart({
    ...{ name: "Relative difference after each layer", unit: "", logarithmic: true, labels },
    series: sampled.map((result) => ({ name: name(result), values: result.layers.map(({ relL2 }) => relL2) })),
    ...(limits.size === 1 && limit !== undefined && { limit }),
  });
  const parted = sampled.map((result) => [name(result), result.firstLayer ?? "nowhere"]);
  const rows = labels.map((label, place) => [
    label,
    ...sampled.map(({ layers }) => exponential(layers[place]?.relL2 ?? undefined)),
  ]);
  return section(
    "layers",
    "Layer by layer",
    "Relative difference of the residual stream after each layer, of 32 tokens spread over all. A fault shows as a step; rounding grows slowly.",
    ...(chart ? [chart] : []),
    table(["plan", "first layer above the limit"], parted, [0, 1]),
    html`<details><summary>Every layer</summary>${table(["layer", ...sampled.map(name)], rows, [0])}</details>`,
  );
}
