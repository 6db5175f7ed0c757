import { expect, test } from "vitest";
import { Whereabouts } from "../../../src/launcher/whereabouts.js";

test("ranks that were last seen doing the same are named together, in order, and the latest counts", () => {
  const whereabouts = new Whereabouts();
  whereabouts.saw(0, "joined");
  whereabouts.saw(0, 'put "a"');
  whereabouts.saw(2, 'put "a"');
  expect(whereabouts.of([])).toBe("");
  expect(whereabouts.of([1])).toBe("; rank 1 has not joined");
  expect(whereabouts.of([0, 1, 2, 3])).toMatch(/^; ranks 0 and 2 put "a" \d+ s ago, ranks 1 and 3 have not joined$/);
});

test("of many different doings only the first are told", () => {
  const whereabouts = new Whereabouts();
  const ranks = Array.from({ length: 9 }, (_, rank) => rank);
  for (const rank of ranks) whereabouts.saw(rank, `put "key ${rank}"`);
  const text = whereabouts.of(ranks);
  expect(text).toContain('rank 5 put "key 5"');
  expect(text).not.toContain("key 6");
  expect(text).toMatch(/, and 3 more groups of ranks did other things$/);
});
