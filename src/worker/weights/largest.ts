import { bf16ToFloat32 } from "../../formats/numbers.js";
import type { Device } from "../runtime/device.js";
import type { Tensor } from "../runtime/tensor.js";

/** The largest absolute value of a contiguous tensor in fp32 or bf16, once the compute stream has done what is queued on it. */
export async function largest(device: Device, x: Tensor): Promise<number> {
  const { buffer } = await device.download(x);
  const values = x.dtype === "bf16" ? bf16ToFloat32(new Uint16Array(buffer)) : new Float32Array(buffer);
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}
