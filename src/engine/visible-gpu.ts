import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** True where the NVIDIA driver shows a GPU to this process: as a device file, or to WSL. */
export function gpuIsVisible(devices = "/dev"): boolean {
  try {
    return existsSync(join(devices, "dxg")) || readdirSync(devices).some((name) => /^nvidia\d+$/.test(name));
  } catch {
    return false;
  }
}
