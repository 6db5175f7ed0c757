import { expect, test } from "vitest";
import { builtKernels } from "../../../../src/paths.js";
import { Examination } from "../../../../src/worker/runtime/examination.js";

const BYTES = 65_536;

test("a device computes, lends and borrows; a wrong value is found out", () => {
  const device = new Examination(builtKernels("cpu"), 0);
  try {
    expect(device.devices).toBe(1);
    expect(device.info?.module).toBe("cpu");
    expect(device.libraries()).toEqual([]);
    device.sum();
    device.product();
    const handle = device.lend(BYTES, 3);
    expect(device.borrow(handle, BYTES, 3, false)).toBeNull();
    expect(() => device.borrow(handle, BYTES, 4, false)).toThrow(
      "what came from the other's memory is 3 instead of 4.",
    );
    expect(() => device.borrow(Buffer.alloc(128).toString("base64"), BYTES, 3, false)).toThrow(/handle/);
  } finally {
    device.close();
  }
});
