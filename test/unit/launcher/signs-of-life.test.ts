import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { SignsOfLife } from "../../../src/launcher/signs-of-life.js";

let silent: (readonly number[])[] = [];
let life: SignsOfLife;
beforeEach(() => {
  vi.useFakeTimers();
  silent = [];
  life = new SignsOfLife(10, (ranks) => silent.push(ranks));
});
afterEach(() => {
  life.close();
  vi.useRealTimers();
});

/** Lets time pass, in which only these ranks are heard of. */
function pass(seconds: number, ...ranks: number[]): void {
  for (let second = 0; second < seconds; second++) {
    vi.advanceTimersByTime(1000);
    for (const rank of ranks) life.heard(rank);
  }
}

test("ranks that fall silent are told once, in order; those heard of and those forgotten are not", () => {
  for (const rank of [3, 0, 1, 2]) life.expect(rank);
  life.forget(2);
  pass(12, 1);
  expect(silent).toEqual([]);
  pass(20, 1);
  expect(silent).toEqual([[0, 3]]);
});

test("a rank that has not joined is not expected to say anything", () => {
  pass(60, 5);
  expect(silent).toEqual([]);
});

test("a launcher that was stopped itself gives the ranks their time anew", () => {
  life.expect(0);
  vi.setSystemTime(Date.now() + 3_600_000);
  vi.spyOn(performance, "now").mockImplementation(() => Date.now());
  pass(9);
  expect(silent).toEqual([]);
  vi.restoreAllMocks();
});
