import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { endAll, SETTLE_MILLISECONDS } from "../../../src/launcher/ending.js";
import { Happenings } from "../../../src/launcher/happenings.js";

const happenings = new Happenings();
/** When each signal came, in milliseconds after the start. */
let signals: string[] = [];
let begin = 0;

class Process {
  running = true;
  constructor(private readonly endsOn: readonly string[]) {}
  signal(signal: string): void {
    signals.push(`${signal} ${Date.now() - begin}`);
    if (!this.endsOn.includes(signal)) return;
    this.running = false;
    happenings.tell();
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  signals = [];
  begin = Date.now();
});
afterEach(() => vi.useRealTimers());

async function end(urgent: () => boolean, ...processes: Process[]) {
  const ended = endAll(processes, happenings, urgent);
  await vi.runAllTimersAsync();
  return ended;
}

test("a process that follows SIGTERM is sent nothing else", async () => {
  expect(await end(() => false, new Process(["SIGTERM"]))).toEqual([]);
  expect(signals).toEqual(["SIGTERM 0"]);
});

test("one that is deaf to it is killed 1.5 s later", async () => {
  expect(await end(() => false, new Process(["SIGKILL"]), new Process(["SIGTERM"]))).toEqual([]);
  expect(signals).toEqual(["SIGTERM 0", "SIGTERM 0", "SIGKILL 1500"]);
});

test("at once where somebody will not wait", async () => {
  await end(() => true, new Process(["SIGKILL"]));
  expect(signals).toEqual(["SIGTERM 0", "SIGKILL 0"]);
});

test("one inside a driver is given up, all within the 5 s that are promised from the first failure on", async () => {
  const stuck = new Process([]);
  expect(await end(() => false, stuck)).toEqual([stuck]);
  expect(Date.now() - begin + SETTLE_MILLISECONDS).toBeLessThan(5000);
});
