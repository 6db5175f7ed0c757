import { expect, it } from "vitest";
import { builtKernels } from "../../../../src/paths.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { Budget } from "../../../../src/worker/tasks/wan-memory.js";

const holders = [{ bytes: 3e9 }, { bytes: 4e9 }];

it("what was used longest ago goes first, and no more than must", () => {
  const device = Device.open(builtKernels("cpu"), 0);
  const victims = (limit: number, used: number, more: number, must = true) =>
    new Budget(device, 1, limit).victims(used, more, holders, must);
  // With a margin of 512 MiB for what is not counted.
  expect(victims(10e9, 7e9, 2e9)).toBe(0);
  expect(victims(10e9, 7e9, 3e9)).toBe(1);
  expect(victims(10e9, 7e9, 7e9)).toBe(2);
  // Without the margin, where nothing else can go.
  expect(victims(10e9, 7e9, 10e9)).toBe(2);
  expect(victims(10e9, 7e9, 10.1e9)).toBe(3);
  expect(victims(10e9, 7e9, 10e9, false)).toBe(3);
  expect(() => new Budget(device, 1, 2 ** 30).refuse(1, 3 * 2 ** 30)).toThrow(
    /^Rank 1 needs 3.00 GiB of device memory even with one model at a time, but has 1.00 GiB:/,
  );
  device.close();
});
