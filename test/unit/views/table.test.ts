import { describe, expect, test } from "vitest";
import { cut, type Page, pageOf, paint, plainPage, prose, textWidth } from "../../../src/views/page.js";
import { type Column, formatTable } from "../../../src/views/table.js";

const rows = [
  { name: "attention 8×512×1024×32 bf16", ms: "49.67", rate: "0.0648", share: "44.3 %" },
  { name: "画像", ms: "1.2", rate: "", share: "1.0 %" },
];
const columns: Column<(typeof rows)[number]>[] = [
  { head: "kernel and shape", short: "kernel", align: "left", cell: ({ name }) => name },
  { head: "milliseconds", short: "ms", cell: ({ ms }) => ms },
  { head: "TFLOP/s", drop: 1, cell: ({ rate }) => rate },
  { head: "share", drop: 2, cell: ({ share }) => share },
  { head: "of peak", cell: () => "" },
];
const at = (width: number) => formatTable({ ...plainPage, columns: width }, columns, rows);
const widest = (text: string) => Math.max(...text.split("\n").map(textWidth));

describe("a table", () => {
  test("has its heads above its columns, and no column that says nothing", () => {
    expect(at(80)).toBe(
      [
        "kernel and shape              milliseconds  TFLOP/s   share",
        "attention 8×512×1024×32 bf16         49.67   0.0648  44.3 %",
        "画像                                   1.2            1.0 %",
      ].join("\n"),
    );
  });

  test.each([
    [58, ["ms", "TFLOP/s", "share"], []],
    [45, ["ms", "TFLOP/s"], ["share"]],
    [38, ["ms"], ["share", "TFLOP/s"]],
    [30, ["attention 8×512×1024×3…"], ["share", "bf16"]],
  ])("of %d columns", (width, shown, hidden) => {
    const table = at(width);
    for (const each of shown) expect(table).toContain(each);
    for (const each of hidden) expect(table).not.toContain(each);
    expect(widest(table)).toBeLessThanOrEqual(width);
  });

  test("with colours is as wide as without", () => {
    const page: Page = { ...plainPage, colour: true };
    const result: Column<string>[] = [
      { head: "result", align: "left", cell: (text) => paint(page, "green", text) },
      { head: "n", cell: () => "1" },
    ];
    const table = formatTable(page, result, ["pass"]);
    expect(table).toContain("\x1b[32mpass\x1b[39m");
    expect(table.split("\n").map(textWidth)).toEqual([9, 9]);
  });
});

describe("a page", () => {
  const terminal = { isTTY: true, columns: 120, hasColors: () => true };
  test.each([
    [terminal, {}, { columns: 120, colour: true, wraps: true }],
    [{ ...terminal, columns: 300 }, {}, { columns: 160, colour: true, wraps: true }],
    // Some terminals say that they have no columns.
    [{ ...terminal, columns: 0 }, {}, { columns: 80, colour: true, wraps: true }],
    // TERM=dumb is Node's to know.
    [{ ...terminal, hasColors: () => false }, {}, { columns: 120, colour: false, wraps: true }],
    [terminal, { NO_COLOR: "1" }, { columns: 120, colour: false, wraps: true }],
    [terminal, { NO_COLOR: "" }, { columns: 120, colour: true, wraps: true }],
    [{}, {}, { columns: 80, colour: false, wraps: false }],
    [{}, { COLUMNS: "132" }, { columns: 132, colour: false, wraps: false }],
    [{}, { COLUMNS: "wide" }, { columns: 80, colour: false, wraps: false }],
    [{}, { FORCE_COLOR: "1", NO_COLOR: "1" }, { columns: 80, colour: true, wraps: false }],
    [terminal, { FORCE_COLOR: "0" }, { columns: 120, colour: false, wraps: true }],
  ])("of %o with %j is %j", (stream, environment, page) => {
    expect(pageOf(stream, environment)).toEqual(page);
  });

  test("breaks sentences between words, on a terminal alone", () => {
    const sentence = "The four kinds and idle add up to the forward.";
    expect(prose({ columns: 20, colour: false, wraps: true }, sentence)).toBe(
      "The four kinds and\nidle add up to the\nforward.",
    );
    expect(prose({ columns: 20, colour: false, wraps: false }, sentence)).toBe(sentence);
  });

  test("knows how wide a text is", () => {
    expect(["µs", "画像", "e\u0301", "\x1b[31mred\x1b[39m"].map(textWidth)).toEqual([2, 4, 1, 3]);
    expect([cut("attention", 9), cut("attention", 5), cut("画像画像", 4)]).toEqual(["attention", "atte…", "画…"]);
  });
});
