import { figures } from "../figures.js";
import { type Page, paint, prose } from "../page.js";
import { type Column, formatTable } from "../table.js";
import type { VideoComparison } from "./pictures.js";
import { type Change, type Part, type ResultComparison, signed } from "./results.js";
import type { Setting } from "./settings.js";
import type { DumpComparison, TensorDifference } from "./tensors.js";

export type Comparison = ResultComparison | VideoComparison | DumpComparison;

/** Rows of kernels, frames and tensors that a terminal shows. */
const MOST_ROWS = 12;

export const percentText = (percent: number | null) =>
  percent === null ? "" : `${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(1)} %`;
/** Whether a change is for the worse; undefined where it is none to speak of. */
export function isWorse({ percent, less }: Change): boolean | undefined {
  if (percent === null || Math.abs(percent) < 0.1) return undefined;
  return percent > 0 === less;
}

/** Both side by side, for people. */
export function compareTable(page: Page, comparison: Comparison): string {
  if (comparison.kind === "results") return resultTables(page, comparison);
  return comparison.kind === "videos" ? videoTable(page, comparison) : dumpTable(page, comparison);
}

function resultTables(page: Page, { changes, parts, kernels, settings, subject }: ResultComparison): string {
  const changeColumns: Column<Change>[] = [
    { head: "what", align: "left", cell: ({ name, unit }) => `${name}, ${unit}` },
    { head: "A", cell: ({ a }) => figures(a) },
    { head: "B", cell: ({ b }) => figures(b) },
    {
      head: "change",
      cell: (row) => {
        const worse = isWorse(row);
        const text = percentText(row.percent);
        return worse === undefined ? text : paint(page, worse ? "red" : "green", text);
      },
    },
  ];
  const partColumns = (head: string): Column<Part>[] => [
    { head, align: "left", cell: ({ name }) => name },
    { head: "A ms", cell: ({ a }) => (a === 0 ? "" : figures(a)) },
    { head: "B ms", cell: ({ b }) => (b === 0 ? "" : figures(b)) },
    { head: "change ms", cell: ({ deltaMs }) => signed(deltaMs) },
  ];
  const settingColumns: Column<Setting>[] = [
    { head: "setting", align: "left", cell: ({ name }) => name },
    { head: "A", align: "left", cell: ({ a }) => short(a) },
    { head: "B", align: "left", cell: ({ b }) => short(b) },
  ];
  return [
    formatTable(page, changeColumns, changes),
    prose(page, `Where ${subject} changed`),
    formatTable(page, partColumns("part"), parts),
    ...(kernels.length === 0
      ? []
      : [
          prose(page, "Kernels of rank 0 that changed most"),
          formatTable(page, partColumns("kernel"), kernels.slice(0, MOST_ROWS)),
        ]),
    ...(settings.length === 0
      ? [prose(page, "No setting differs.")]
      : [prose(page, "What differs besides"), formatTable(page, settingColumns, settings)]),
  ].join("\n");
}

const short = (text: string) => (text.length <= 40 ? text : `${text.slice(0, 39)}…`);

function videoTable(page: Page, { byFrame, width, height, frames }: VideoComparison): string {
  const columns: Column<VideoComparison["byFrame"][number]>[] = [
    { head: "frame", cell: ({ frame }) => String(frame) },
    { head: "PSNR dB", cell: ({ psnr }) => (psnr === null ? "equal" : figures(psnr)) },
    { head: "SSIM", cell: ({ ssim }) => (ssim === null ? "" : figures(ssim)) },
  ];
  const worst = byFrame
    .toSorted((a, b) => (a.psnr ?? Number.POSITIVE_INFINITY) - (b.psnr ?? Number.POSITIVE_INFINITY))
    .slice(0, MOST_ROWS);
  return [
    prose(
      page,
      `${frames} frames of ${width} × ${height}; ${worst.length < byFrame.length ? `the ${worst.length} that differ most` : "all of them"}`,
    ),
    formatTable(page, columns, worst),
  ].join("\n");
}

function dumpTable(page: Page, { tensors, onlyA, onlyB }: DumpComparison): string {
  const columns: Column<TensorDifference>[] = [
    { head: "tensor", align: "left", cell: ({ name }) => name },
    { head: "what", align: "left", drop: 1, cell: ({ where, name }) => (where === name ? "" : where) },
    { head: "rel L2", cell: ({ relL2, equal }) => (equal ? "equal" : (relL2?.toExponential(1) ?? "NaN")) },
    { head: "largest", cell: ({ maxAbs, equal }) => (equal ? "" : (maxAbs?.toExponential(1) ?? "NaN")) },
    { head: "PSNR dB", cell: ({ psnr }) => (psnr === null ? "" : figures(psnr)) },
  ];
  const only = (names: readonly string[], which: string) =>
    names.length === 0 ? [] : [prose(page, `Only in ${which}: ${names.join(", ")}`)];
  return [formatTable(page, columns, tensors), ...only(onlyA, "A"), ...only(onlyB, "B")].join("\n");
}
