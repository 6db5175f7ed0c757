import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageRoot } from "../../../src/paths.js";
import { rowsOf, textOf } from "./pages.js";

const results = join(packageRoot, "bench/results");
const measured = readdirSync(results)
  .filter((name) => name.endsWith(".md"))
  .flatMap((name) => [...readFileSync(join(results, name), "utf8").matchAll(/(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?/g)])
  .map(([number]) => Number(number));

const decimals = (number: string) => number.split(".")[1]?.length ?? 0;

/** Whether a number that was measured is this one, rounded to as many digits. */
function isMeasured(number: string): boolean {
  const half = 0.5 * 10 ** -decimals(number) + 1e-9;
  // Of a video, `1057 ms` and `1.057 s` are the same.
  return measured.some((one) => [one, one * 1000, one / 1000].some((same) => Math.abs(same - Number(number)) <= half));
}

/** Times in the tables of a page, as they stand there. */
const timesIn = (page: string) =>
  rowsOf(textOf(page)).flatMap((row) =>
    row.flatMap((cell) => /^(\d+(?:\.\d+)?) (?:ms|s|dB)(?: \[\d\])?$/.exec(cell)?.[1] ?? []),
  );

test.each([
  ["README.md", 20],
  ["docs/benchmarks.md", 45],
  ["docs/videos.md", 5],
])("every time in the tables of %s was measured", (page, least) => {
  const times = timesIn(page);
  expect(times.length).toBeGreaterThanOrEqual(least);
  expect(times.filter((time) => !isMeasured(time))).toEqual([]);
});

test("a time that was not measured is noticed", () => {
  expect(["551.8", "552", "2519", "46.1", "28.2"].filter(isMeasured)).toEqual(["551.8", "552", "2519", "46.1", "28.2"]);
  expect(["551.7", "554.9", "46.3"].filter(isMeasured)).toEqual([]);
});
