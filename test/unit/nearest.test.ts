import { expect, test } from "vitest";
import { editDistance, nearest } from "../../src/nearest.js";

test.each([
  ["", "", 0],
  ["abc", "abc", 0],
  ["abc", "acb", 1],
  ["abc", "ab", 1],
  ["ab", "axb", 1],
  ["kitten", "sitting", 3],
  ["ca", "abc", 3],
])("%j and %j are %i apart", (a, b, distance) => {
  expect(editDistance(a, b)).toBe(distance);
  expect(editDistance(b, a)).toBe(distance);
});

test.each([
  ["promt", "--prompt"],
  ["--PROMPT", "--prompt"],
  ["ckptdir", "--ckpt-dir"],
  ["--prompt-file", "--prompt"],
  ["--iter", "--iterations"],
  ["--tpp", "--tp"],
  ["--cp", undefined],
  ["--x", undefined],
  ["--zzzzzz", undefined],
  ["", undefined],
])("%j may mean %j", (typed, name) => {
  expect(nearest(typed, ["--tp", "--prompt", "--iterations", "--ckpt-dir", "--out"])).toBe(name);
});
