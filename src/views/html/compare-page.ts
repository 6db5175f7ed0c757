import type { VideoComparison } from "../compare/pictures.js";
import { type Comparison, isWorse, percentText } from "../compare/report.js";
import { type Part, type ResultComparison, signed } from "../compare/results.js";
import type { DumpComparison } from "../compare/tensors.js";
import { figures } from "../figures.js";
import { bars } from "./bars.js";
import { lineChart } from "./line-chart.js";
import { html, type Markup } from "./markup.js";
import { type Headline, reportPage, section, table } from "./page.js";

export interface ComparePage {
  readonly a: string;
  readonly b: string;
  readonly comparison: Comparison;
  readonly made: { readonly ditrun: { readonly version: string }; readonly host: string; readonly startedAt: string };
}

/** Two results, videos or dumps side by side, as one HTML document. */
export function comparePage({ a, b, comparison, made }: ComparePage): string {
  const { verdict } = comparison;
  const { headlines, sections } = partsOf(comparison);
  return reportPage({
    ...{ command: "compare", title: `A: ${a}, B: ${b}`, verdict, headlines, sections },
    made: `Made by ditrun ${made.ditrun.version} on ${made.host}, ${made.startedAt}. This page holds all that it shows: nothing is fetched.`,
  });
}

function partsOf(comparison: Comparison): { headlines: Headline[]; sections: Markup[] } {
  if (comparison.kind === "results") return ofResults(comparison);
  return comparison.kind === "videos" ? ofVideos(comparison) : ofDumps(comparison);
}

function ofResults({ changes, parts, kernels, settings, subject }: ResultComparison) {
  const mark = (row: (typeof changes)[number]) => {
    const worse = isWorse(row);
    const kind = worse === undefined ? "" : worse ? "up" : "down";
    return html`<span class="${kind}">${percentText(row.percent)}${worse === undefined ? "" : worse ? " worse" : " better"}</span>`;
  };
  const rows = changes.map((row) => [`${row.name}, ${row.unit}`, figures(row.a), figures(row.b), mark(row)]);
  const partRows = (list: readonly Part[]) =>
    list.map(({ name, a, b, deltaMs }) => [name, time(a), time(b), signed(deltaMs)]);
  const longest = parts.flatMap(({ name, a, b }) => [
    { name: `${name}, A`, parts: [{ kind: kindOf(name), name: "A", value: a }] },
    { name: `${name}, B`, parts: [{ kind: kindOf(name), name: "B", value: b }] },
  ]);
  return {
    headlines: changes.slice(0, 4).map((row) => ({
      name: `${row.name}, ${row.unit}`,
      value: percentText(row.percent) || "–",
      note: `${figures(row.a)} → ${figures(row.b)}`,
    })),
    sections: [
      section("changes", "Side by side", undefined, table(["what", "A", "B", "change"], rows)),
      section(
        "parts",
        `Where ${subject} changed`,
        "The largest change first.",
        bars(longest, { unit: "ms" }),
        table(["part", "A ms", "B ms", "change ms"], partRows(parts)),
      ),
      ...(kernels.length > 0
        ? [
            section(
              "kernels",
              "Kernels that changed",
              "Of rank 0, all launches together.",
              table(["kernel", "A ms", "B ms", "change ms"], partRows(kernels), [0]),
            ),
          ]
        : []),
      section(
        "settings",
        "What differs besides",
        settings.length === 0
          ? "No setting, version or machine differs: the change is noise, or of what cannot be seen here."
          : undefined,
        ...(settings.length === 0
          ? []
          : [
              table(
                ["setting", "A", "B"],
                settings.map(({ name, a, b }) => [name, a, b]),
                [1, 2],
              ),
            ]),
      ),
    ],
  };
}

/** What only one of both has took no time in the other. */
const time = (milliseconds: number) => (milliseconds === 0 ? "–" : figures(milliseconds));

/** A kind of work has its colour and pattern. */
const kindOf = (name: string) =>
  ["attention", "gemm", "elementwise", "communication"].includes(name)
    ? name
    : name === "nothing runs"
      ? "idle"
      : "plain";

function ofVideos({ psnr, ssim, byFrame, frames, width, height, differencePercent }: VideoComparison) {
  const chart = lineChart({
    name: "PSNR of each frame",
    unit: "dB",
    series: [{ name: "PSNR", values: byFrame.map((each) => each.psnr) }],
    labels: byFrame.map(({ frame }) => `frame ${frame}`),
  });
  return {
    headlines: [
      { name: "PSNR", value: psnr === null ? "equal" : `${figures(psnr)} dB` },
      ...(ssim === null ? [] : [{ name: "SSIM", value: figures(ssim) }]),
      { name: "difference", value: `${figures(differencePercent)} %`, note: "relative L2" },
      { name: "frames", value: String(frames), note: `${width} × ${height}` },
    ],
    sections: [
      section(
        "frames",
        "Frame by frame",
        "PSNR of RGB values, and SSIM of luma; frames that are equal have no point.",
        ...(chart ? [chart] : []),
        table(
          ["frame", "PSNR dB", "SSIM"],
          byFrame.map((each) => [
            String(each.frame),
            each.psnr === null ? "equal" : figures(each.psnr),
            each.ssim === null ? "" : figures(each.ssim),
          ]),
        ),
      ),
    ],
  };
}

function ofDumps({ tensors, firstApart, differencePercent }: DumpComparison) {
  const chart = lineChart({
    name: "Relative difference of each tensor",
    unit: "",
    logarithmic: true,
    series: [{ name: "rel L2", values: tensors.map(({ relL2 }) => relL2) }],
    labels: tensors.map(({ where }) => where),
  });
  const rows = tensors.map(({ name, where, relL2, maxAbs, psnr, equal }) => [
    ...[name, where === name ? "" : where, equal ? "equal" : (relL2?.toExponential(2) ?? "NaN")],
    ...[equal ? "" : (maxAbs?.toExponential(2) ?? "NaN"), psnr === null ? "" : figures(psnr)],
  ]);
  return {
    headlines: [
      { name: "they part at", value: firstApart ?? "nowhere" },
      {
        name: "largest difference",
        value: differencePercent === null ? "not finite" : `${figures(differencePercent)} %`,
      },
      { name: "tensors", value: String(tensors.length) },
    ],
    sections: [
      section(
        "tensors",
        "Tensor by tensor",
        "In the order in which they were computed; equal ones have no point.",
        ...(chart ? [chart] : []),
        table(["tensor", "what", "rel L2", "largest", "PSNR dB"], rows, [0, 1]),
      ),
    ],
  };
}
