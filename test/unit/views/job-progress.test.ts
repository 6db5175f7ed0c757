import { describe, expect, test } from "vitest";
import { type JobEvent, JobProgress, type JobShape } from "../../../src/views/job-progress.js";
import { duration, WaitLine } from "../../../src/views/wait-line.js";

/** A target whose clock stands at `clock.now`, with a terminal of so many columns or without one. */
function target(columns?: number) {
  const clock = { now: 0 };
  const said: string[] = [];
  const warned: string[] = [];
  const drawn: (string | undefined)[] = [];
  const events: JobEvent[] = [];
  const all = {
    ...{ info: (line: string) => void said.push(line), warn: (line: string) => void warned.push(line) },
    ...{ event: (event: JobEvent) => void events.push(event), now: () => clock.now, onCpu: true },
    ...(columns !== undefined && { status: (text?: string) => void drawn.push(text), columns: () => columns }),
  };
  return { clock, said, warned, drawn, events, all };
}

const sample = (done: number) => ({ stage: "sample", done, total: 50, milliseconds: 2000 * done }) as const;

describe("a video", () => {
  test("without a terminal is a line for each stage, and for steps one in ten seconds", () => {
    const { clock, said, warned, events, all } = target();
    const progress = new JobProgress(all, { frames: 5 });
    const load = { stage: "load", total: 4e9, what: "the text encoder" } as const;
    progress.report({ ...load, done: 1e9, milliseconds: 500 });
    progress.report({ ...load, done: 4e9, milliseconds: 2000 });
    progress.report({ stage: "prepare", done: 1, total: 1, milliseconds: 12_345 });
    progress.report({ stage: "encode", done: 1, total: 1, milliseconds: 250 });
    for (let step = 1; step <= 50; step++) {
      clock.now += 2000;
      progress.report(sample(step));
    }
    progress.frame();
    progress.report({ stage: "decode", done: 5, total: 5, milliseconds: 1000 });
    progress.end();
    expect(said).toEqual([
      "Loaded the text encoder: 4.00 GB on rank 0 in 2.00 s, 2.00 GB/s.",
      "Prepared the models in 12.3 s: memory planned, weights loaded, warmed up.",
      "Encoded the texts in 0.25 s.",
      ...[5, 10, 15, 20, 25, 30, 35, 40, 45].map(
        (step) => `Step ${step}/50, 2.00 s/step, ${duration(100 - 2 * step)} left.`,
      ),
      "Sampled 50 steps in 100 s.",
      "Decoded 5 frames in 1.00 s.",
    ]);
    expect(warned).toEqual(["On this CPU about 1 min 38 s are left: 49 more steps of 2.00 s."]);
    expect(events.slice(0, 2)).toEqual([
      { event: "loading", what: "the text encoder", bytes: 1e9, totalBytes: 4e9, seconds: 0.5 },
      { event: "loading", what: "the text encoder", bytes: 4e9, totalBytes: 4e9, seconds: 2 },
    ]);
    expect(events).toContainEqual({ event: "step", done: 20, total: 50, seconds: 40, secondsLeft: 60 });
    expect(events.slice(-2)).toEqual([
      { event: "frame", done: 1, total: 5 },
      { event: "stage", stage: "decode", seconds: 1 },
    ]);
  });

  test("on a terminal is one bar after the other, each in less than 60 columns", () => {
    const { clock, said, drawn, all } = target(160);
    const progress = new JobProgress(all, { frames: 4 });
    const last = () => drawn.at(-1);
    clock.now = 600;
    const load = {
      stage: "load",
      done: 11.2e9,
      total: 28.6e9,
      milliseconds: 5600,
      what: "the transformer and the VAE",
    };
    progress.report({ ...load, stage: "load" });
    expect(last()).toBe("[========            ] loading 11.2 GB of 28.6 GB, 2.00 GB…");
    progress.report(sample(25));
    expect(last()).toBe("[==========          ] step 25/50, 2.00 s/step, 50 s left");
    progress.report({ stage: "encode", done: 1, total: 1, milliseconds: 1 });
    expect(last()).toBeUndefined();
    clock.now = 2600;
    progress.frame();
    expect(last()).toBe("[=====               ] frame 1/4, 0.50 frames/s, 6 s left");
    progress.end();
    expect(last()).toBeUndefined();
    expect(said).toEqual(["Encoded the texts in 0.00 s."]);
    for (const text of drawn) expect((text ?? "").length).toBeLessThan(60);
  });

  test("says nothing of time left under a second", () => {
    const { clock, drawn, all } = target(80);
    const progress = new JobProgress(all, {});
    clock.now = 600;
    progress.report({ stage: "sample", done: 2, total: 6, milliseconds: 200 });
    expect(drawn.at(-1)).toBe("[=======             ] step 2/6, 0.1000 s/step");
  });
});

test.each<[JobShape, number, string[]]>([
  [
    { forwards: 14 },
    180_000,
    ["On this CPU about 42 min 0 s are left: 14 more forwards of 180 s each (--warmup 0 --iterations 1 is the least)."],
  ],
  [{ forwards: 5 }, 200, []],
])("%j after a first forward of %d ms: a long run on a CPU is told", (shape, milliseconds, warnings) => {
  const { warned, events, all } = target();
  const progress = new JobProgress(all, shape);
  progress.report({ stage: "load", done: 1, total: 1, milliseconds: 0 });
  progress.report({ stage: "first", done: 1, total: 1, milliseconds });
  progress.report({ stage: "forward", done: 1, total: 2, milliseconds });
  progress.end();
  expect(warned).toEqual(warnings);
  expect(events).toEqual([
    { event: "forward", kind: "first", done: 1, total: 1, milliseconds },
    { event: "forward", kind: "timed", done: 1, total: 2, milliseconds },
  ]);
});

test("a wait that is over soon shows nothing; one of unknown length shows for how long; a narrow terminal cuts it", () => {
  const { clock, drawn, all } = target(20);
  const wait = new WaitLine(all);
  wait.begin("warming up");
  wait.advance({ done: 1, total: 2, text: "step 1/2" });
  expect(drawn).toEqual([undefined]);
  wait.begin("warming up all that there is");
  clock.now = 3000;
  wait.advance({ done: 1, total: 2, text: "step 1/2" });
  expect(drawn.at(-1)).toBe("[==========       …");
  wait.end();
});

test("durations", () => {
  expect([0, 59, 60, 725, 3600, 3780].map(duration)).toEqual([
    ...["0 s", "59 s", "1 min 0 s", "12 min 5 s", "1 h 0 min", "1 h 3 min"],
  ]);
});
