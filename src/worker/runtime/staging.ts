import type { Device } from "./device.js";
import { type Tensor, tensor, tensorBytes } from "./tensor.js";

/**
 * Runs the body with device memory of its own, which is freed once the device has done what the body queued.
 * Not for work that is rehearsed: nothing is counted.
 */
export async function withStaging<T>(
  device: Device,
  dtype: Tensor["dtype"],
  shape: readonly number[],
  body: (staging: Tensor) => Promise<T>,
): Promise<T> {
  const address = device.kernels.create("malloc", tensorBytes(dtype, shape), 0);
  try {
    const result = await body(tensor(address, dtype, shape));
    await device.synchronize();
    return result;
  } finally {
    device.kernels.call("free", address);
  }
}
