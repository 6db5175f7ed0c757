import { expect, test } from "vitest";
import { clockOf } from "../../../src/worker/tasks/recording.js";
import { Timeline } from "../../../src/worker/tasks/timeline.js";

const now = () => Number(process.hrtime.bigint()) / 1e3;

test("a rank's clock is brought to the launcher's by the quickest of many answers", async () => {
  let asked = 0;
  const ahead = 5e6;
  const time = async () => {
    asked += 1;
    // Half of the way there, half of it back; all but one answer take long.
    const wait = async () => {
      if (asked !== 7) await new Promise((done) => setTimeout(done, 4));
    };
    await wait();
    const told = now() + ahead;
    await wait();
    return told;
  };
  const { offsetMicroseconds, residualMicroseconds, id } = await clockOf({ time });
  expect(asked).toBe(20);
  expect(id).toMatch(/^[0-9a-f-]{36}$/);
  expect(residualMicroseconds).toBeLessThan(4000);
  expect(Math.abs(offsetMicroseconds - ahead)).toBeLessThanOrEqual(residualMicroseconds + 1);
});

test("an answer that comes late says the time of its middle", async () => {
  const time = async () => {
    const told = now();
    const until = told + 2000;
    while (now() < until);
    return told + 1000;
  };
  const { offsetMicroseconds, residualMicroseconds } = await clockOf({ time });
  expect(residualMicroseconds).toBeGreaterThanOrEqual(1000);
  expect(Math.abs(offsetMicroseconds)).toBeLessThan(500);
});

test("stages and steps are told by the clock of what was recorded", async () => {
  const timeline = new Timeline();
  await timeline.step("step 1", async () => undefined);
  timeline.stage("sample");
  const block = { name: "blocks.0", kind: "block", startMicroseconds: 1, durationMicroseconds: 2 } as const;
  const recording = { events: [], spans: [block], beganMicroseconds: now() + 1e6 };
  const phases = { attention: 0, gemm: 0, elementwise: 0, communication: 0 };
  expect(() => timeline.parts()).toThrow("No step");
  timeline.recorded(1, { recordedMs: 1, phases, ringWaitsMs: [], recording });
  const { spans } = timeline.parts().recording;
  expect(spans.map(({ name, kind }) => `${kind} ${name}`)).toEqual(["step step 1", "stage sample", "block blocks.0"]);
  for (const { kind, startMicroseconds } of spans) {
    expect(startMicroseconds).toBeLessThan(kind === "block" ? 2 : -9e5);
  }
});
