import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { SimulatedHosts } from "./nodes/simulated-hosts.js";

test("jobs of several hosts after each other leave no more files open than one", async () => {
  const open = async () => {
    const ends = await new SimulatedHosts(2, 1, () => "exit 0").runAll();
    expect(ends.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    return readdirSync("/proc/self/fd").length;
  };
  const first = await open();
  for (let job = 0; job < 3; job++) await open();
  // A context of ZeroMQ alone has five.
  expect((await open()) - first).toBeLessThan(5);
});
