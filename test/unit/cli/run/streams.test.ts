import { describe, expect, test } from "vitest";
import { parseFilters, parseStreams, whereLinesGo } from "../../../../src/cli/run/streams.js";

const read = (text: string) => parseStreams(text, "--tee");

test.each([
  ["0", [false, false]],
  ["1", [true, false]],
  ["2", [false, true]],
  ["3", [true, true]],
])("%s is of all ranks", (text, [out, err]) => {
  for (const rank of [0, 11]) expect([read(text)(rank, "stdout"), read(text)(rank, "stderr")]).toEqual([out, err]);
});

test("single ranks, also of two digits; the others have none", () => {
  const chosen = read("0:1,11:3");
  const of = (rank: number) => [chosen(rank, "stdout"), chosen(rank, "stderr")];
  expect([of(0), of(1), of(11)]).toEqual([
    [true, false],
    [false, false],
    [true, true],
  ]);
});

test.each(["0:1,", "11", "1,0:1", "0:4", "0:1,0:2", "", "both"])('"%s" is refused', (text) => {
  expect(() => read(text)).toThrow(/^--tee is ".*"; it must be 0, 1, 2 or 3, or RANK:0 to RANK:3/);
});

describe("lines go", () => {
  const none = { redirects: undefined, tee: undefined, filter: undefined };
  const go = (wishes: Partial<Parameters<typeof whereLinesGo>[0]>, rank = 0, first = 0) =>
    whereLinesGo({ ...none, ...wishes }, { rank: first })(rank, "stderr");

  test.each([
    ["to both where nothing is said", {}, { shown: true, kept: true }],
    ["to the file only, redirected", { redirects: read("2") }, { shown: false, kept: true }],
    [
      "to the terminal only, where the other stream is redirected",
      { redirects: read("1") },
      { shown: true, kept: false },
    ],
    ["to both, teed as well as redirected", { redirects: read("3"), tee: read("2") }, { shown: true, kept: true }],
    ["to the file only, of a rank that is filtered out", { filter: new Set([1]) }, { shown: false, kept: true }],
    ["to both, of one that is not", { filter: new Set([0]) }, { shown: true, kept: true }],
  ])("%s", (_, wishes, expected) => {
    expect(go(wishes)).toEqual(expected);
  });

  test("by ranks of this host", () => {
    expect(go({ filter: new Set([1]) }, 9, 8)).toEqual({ shown: true, kept: true });
    expect(go({ filter: new Set([9]) }, 9, 8).shown).toBe(false);
  });
});

test("parts of lines are separated by commas; two are one", () => {
  expect(parseFilters("loss,a,,b", "--duplicate-stdout-filters")).toEqual(["loss", "a,b"]);
  for (const text of ["", "a,", ",a"])
    expect(() => parseFilters(text, "--duplicate-stdout-filters")).toThrow(/parts of lines/);
});
