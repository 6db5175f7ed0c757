import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../paths.js";

/** True where the NVIDIA driver shows a GPU to this process: as a device file, or to WSL. */
export function gpuIsVisible(devices = "/dev"): boolean {
  try {
    return existsSync(join(devices, "dxg")) || readdirSync(devices).some((name) => /^nvidia\d+$/.test(name));
  } catch {
    return false;
  }
}

/** Why the package has no CUDA module and what to do, in sentences: what the build has noted, if it has. @param note of the build. */
export function whyNoCudaModule(note = join(packageRoot, "build", "cuda.txt")): string {
  try {
    const [line = ""] = readFileSync(note, "utf8").split("\n");
    if (line !== "") return line;
  } catch {
    // An older build, or none.
  }
  return `The CUDA module is not built: nvcc was not found or could not be used. Install it and run npm run build in ${packageRoot}.`;
}
