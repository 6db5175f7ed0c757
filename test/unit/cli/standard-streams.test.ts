import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { endWithUnreadStderr } from "../../../src/cli/standard-streams.js";

let unread = { stdout: 0, stderr: 0 };
beforeEach(() => {
  vi.useFakeTimers();
  for (const name of ["stdout", "stderr"] as const) {
    Object.defineProperty(process[name], "writableLength", { configurable: true, get: () => unread[name] });
  }
});
afterEach(() => {
  for (const name of ["stdout", "stderr"] as const) Reflect.deleteProperty(process[name], "writableLength");
  vi.useRealTimers();
});

test.each([
  ["nobody reads stderr", () => ({ stdout: 0, stderr: 1000 }), 1],
  ["stderr is read slowly", (left: number) => ({ stdout: 0, stderr: left }), 0],
  ["what was asked for is still to be read", () => ({ stdout: 1, stderr: 1000 }), 0],
])("the process ends with text unread only where %s", (_, next, times) => {
  const exit = vi.fn();
  endWithUnreadStderr(3000, exit);
  for (let second = 0; second < 20; second++) {
    unread = next(1000 - second);
    vi.advanceTimersByTime(1000);
  }
  expect(exit).toHaveBeenCalledTimes(times);
});
