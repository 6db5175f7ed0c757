import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { float32ToBf16, float32ToFloat16 } from "../../../src/formats/numbers.js";
import { openSafetensors, writeSafetensors } from "../../../src/formats/safetensors.js";
import { builtKernels } from "../../../src/paths.js";
import { Device } from "../../../src/worker/runtime/device.js";
import { CheckpointWeights } from "../../../src/worker/weights/checkpoint.js";
import { wholeOf } from "../../../src/worker/weights/source.js";

// Numbers that float16 and bfloat16 both hold, with other bits in each.
const values = Float32Array.of(1, -2.25, 0.5, 96, -0.375, 1.5);
const stored = {
  F32: new Uint8Array(values.slice().buffer),
  F16: new Uint8Array(float32ToFloat16(values).buffer),
  BF16: new Uint8Array(float32ToBf16(values).buffer),
};

let folder: string;
let device: Device;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  device = Device.open(builtKernels("cpu"), 0);
});
afterAll(() => {
  device.close();
  rmSync(folder, { recursive: true, force: true });
});

describe("weights of a checkpoint", () => {
  it.for(["F32", "F16", "BF16"] as const)("stored as %s are the numbers that were stored", async (dtype) => {
    const path = join(folder, `${dtype}.safetensors`);
    await writeSafetensors(path, { w: { dtype, shape: [3, 2], data: stored[dtype] } });
    const source = new CheckpointWeights(device, await openSafetensors(path));
    const parameter = { name: "w", shape: [3, 2], init: { kind: "constant", value: 0 } as const };
    const out = device.allocatePersistent("fp32", [3, 2]);
    await source.load(parameter, wholeOf(parameter), out);
    expect(new Float32Array((await device.download(out)).buffer)).toEqual(values);
    const columns = { rows: [{ start: 0, count: 3 }], columns: { start: 1, count: 1 } };
    const half = device.allocatePersistent("fp32", [3, 1]);
    await source.load(parameter, columns, half);
    expect([...new Float32Array((await device.download(half)).buffer)]).toEqual([-2.25, 96, 1.5]);
    await source.close();
  });
});
