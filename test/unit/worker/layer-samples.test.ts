import { expect, test } from "vitest";
import { builtKernels } from "../../../src/paths.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { LayerSamples } from "../../../src/worker/tasks/layer-samples.js";
import { makeStores } from "./in-process-ranks.js";

test("tokens of all ranks come together in order, each once", async () => {
  const device = Device.open(builtKernels("cpu"), 0);
  const [total, width] = [40, 3];
  const stores = makeStores(2);
  const ranges = [
    { start: 0, count: 25, total },
    { start: 25, count: 15, total },
  ];
  const collected = await Promise.all(
    ranges.map(async (range, rank) => {
      const x = device.allocatePersistent("fp32", [range.count, width]);
      const values = Float32Array.from({ length: range.count * width }, (_, i) => 3 * range.start + i);
      await device.upload(x, new Uint8Array(values.buffer));
      const samples = new LayerSamples(device, range);
      const tap = samples.tap("cond", (name) => (name === "gate" ? undefined : name));
      tap("gate", x);
      tap("block.0", x);
      // The memory is used again: what was told before is kept.
      device.clear(x);
      tap("block.1", x);
      const other = device.allocatePersistent("fp32", [range.count + 1, width]);
      expect(() => tap("block.2", other)).toThrow(`block.2 is fp32 [${range.count + 1}, 3]`);
      await device.synchronize();
      const store = stores[rank];
      if (!store) throw new Error("There is no store.");
      return samples.collect(store);
    }),
  );
  expect(collected[1]).toEqual({});
  const layers = collected[0] ?? {};
  expect(Object.keys(layers)).toEqual(["layer.000.cond.block.0", "layer.001.cond.block.1"]);
  const [first, second] = Object.values(layers).map(({ shape, data }) => ({
    shape,
    bytes: Buffer.from(data.buffer, data.byteOffset, data.byteLength),
  }));
  expect(first?.shape).toEqual([32, width]);
  const found = Array.from({ length: 32 }, (_, row) => (first?.bytes.readFloatLE(4 * width * row) ?? 0) / 3);
  expect(found).toEqual(Array.from({ length: 32 }, (_, index) => Math.floor(((index + 0.5) * 40) / 32)));
  expect(second?.bytes.every((byte) => byte === 0)).toBe(true);
  device.close();
});
