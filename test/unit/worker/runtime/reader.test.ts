import { expect, it } from "vitest";
import { builtKernels } from "../../../../src/paths.js";
import { Device } from "../../../../src/worker/runtime/device.js";
import { noKernels } from "../../../../src/worker/runtime/kernels.js";
import { Reader } from "../../../../src/worker/runtime/reader.js";

it("counts its slots on a GPU once something is to be read: two of 4 MiB for each of at most 16 threads", () => {
  const device = Device.open(builtKernels("cpu"), 0);
  const of = (module: "cpu" | "cuda", workers: number) => {
    const reader = new Reader(noKernels({ module, deviceInfo: device.info }), 0, workers, () => {});
    expect(reader.bytes).toBe(0);
    reader.want();
    return reader.bytes / 2 ** 23;
  };
  expect(of("cuda", 1)).toBeGreaterThanOrEqual(2);
  expect(of("cuda", 1)).toBeLessThanOrEqual(16);
  expect(of("cuda", 10_000)).toBe(2);
  expect(of("cpu", 1)).toBe(0);
  device.close();
});
