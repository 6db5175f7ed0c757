import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { AwakeClock } from "../../../src/protocol/awake-clock.js";

let halted = false;
let clock: AwakeClock;
let acted: string[] = [];
beforeEach(() => {
  vi.useFakeTimers();
  halted = false;
  acted = [];
  clock = new AwakeClock(() => halted);
});
afterEach(() => {
  clock.close();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** Time goes on without this process: what it finds when it goes on is a later time. */
function sleep(milliseconds: number): void {
  const real = performance.now.bind(performance);
  vi.spyOn(performance, "now").mockImplementation(() => real() + milliseconds);
}

test("acts when the time has passed, once, and not what was called off", () => {
  clock.after(1000, () => acted.push("one"));
  clock.after(500, () => acted.push("never"))();
  vi.advanceTimersByTime(900);
  expect(acted).toEqual([]);
  vi.advanceTimersByTime(5000);
  expect(acted).toEqual(["one"]);
  expect(vi.getTimerCount()).toBe(0);
});

test("time in which this process was stopped does not count", () => {
  clock.after(1000, () => acted.push("one"));
  vi.advanceTimersByTime(500);
  sleep(60_000);
  vi.advanceTimersByTime(400);
  expect(acted).toEqual([]);
  vi.advanceTimersByTime(300);
  expect(acted).toEqual(["one"]);
});

test("nor does time in which whoever is waited for was", () => {
  clock.after(1000, () => acted.push("one"));
  halted = true;
  vi.advanceTimersByTime(60_000);
  expect(acted).toEqual([]);
  halted = false;
  vi.advanceTimersByTime(1100);
  expect(acted).toEqual(["one"]);
});

test("closing calls everything off", () => {
  clock.after(100, () => acted.push("one"));
  clock.close();
  vi.advanceTimersByTime(1000);
  expect(acted).toEqual([]);
});
