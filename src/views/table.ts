import CliTable from "cli-table3";
import { cut, type Page, paint, textWidth } from "./page.js";

/** One column of a table. */
export interface Column<Row> {
  readonly head: string;
  /** In its place where the table would be too wide. */
  readonly short?: string;
  /** What the row has here; a column that has nothing in any row is left out. */
  readonly cell: (row: Row) => string;
  /** Text stands on the left, numbers on the right. */
  readonly align?: "left" | "right";
  /** Whether it may be left out where the table would be too wide: the highest goes first. */
  readonly drop?: number;
}

const GAP = "  ";
/** A column of text is cut to no less. */
const LEAST_TEXT = 8;

interface Laid {
  readonly head: string;
  readonly cells: readonly string[];
  readonly align: "left" | "right";
}

/**
 * A table without lines, its heads above its columns, that fits the page: with short heads first, then without the columns
 * that may go, then with its longest texts cut.
 */
export function formatTable<Row>(page: Page, columns: readonly Column<Row>[], rows: readonly Row[]): string {
  let chosen = columns
    .map((column) => ({ ...column, cells: rows.map((row) => column.cell(row)) }))
    .filter(({ cells }) => rows.length === 0 || cells.some((cell) => cell !== ""));
  const lay = (short: boolean): Laid[] =>
    chosen.map(({ head, short: other, cells, align }) => ({
      head: short ? (other ?? head) : head,
      cells,
      align: align ?? "right",
    }));
  let laid = lay(false);
  if (widthOf(laid) > page.columns) laid = lay(true);
  while (widthOf(laid) > page.columns) {
    const most = Math.max(...chosen.map(({ drop = 0 }) => drop));
    if (most === 0) break;
    chosen = chosen.filter(({ drop = 0 }) => drop !== most);
    laid = lay(true);
  }
  return render(page, narrowed(laid, page.columns));
}

const ownWidth = ({ head, cells }: Laid) => Math.max(...[head, ...cells].map(textWidth));

function widthOf(columns: readonly Laid[]): number {
  return columns.reduce((sum, column) => sum + ownWidth(column), GAP.length * (columns.length - 1));
}

/** Cuts the columns of text, the widest first. */
function narrowed(columns: readonly Laid[], most: number): readonly Laid[] {
  const over = widthOf(columns) - most;
  if (over <= 0) return columns;
  const texts = columns.filter(({ align }) => align === "left").sort((a, b) => ownWidth(b) - ownWidth(a));
  const [widest] = texts;
  if (!widest) return columns;
  const width = Math.max(LEAST_TEXT, ownWidth(widest) - over);
  if (width >= ownWidth(widest)) return columns;
  const shorter = { ...widest, cells: widest.cells.map((cell) => cut(cell, width)), head: cut(widest.head, width) };
  return narrowed(
    columns.map((column) => (column === widest ? shorter : column)),
    most,
  );
}

/** No lines, two spaces between the columns. */
const bare = {
  ...{ top: "", "top-mid": "", "top-left": "", "top-right": "", bottom: "", "bottom-mid": "", "bottom-left": "" },
  ...{ "bottom-right": "", left: "", "left-mid": "", mid: "", "mid-mid": "", right: "", "right-mid": "", middle: GAP },
};

function render(page: Page, columns: readonly Laid[]): string {
  const table = new CliTable({
    chars: bare,
    style: { head: [], border: [], "padding-left": 0, "padding-right": 0 },
    colAligns: columns.map(({ align }) => align),
    colWidths: columns.map(ownWidth),
  });
  table.push(columns.map(({ head }) => head));
  for (const row of columns[0]?.cells.keys() ?? []) table.push(columns.map(({ cells }) => cells[row] ?? ""));
  const [heads = "", ...rows] = table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd());
  return [paint(page, "bold", heads), ...rows].join("\n");
}
