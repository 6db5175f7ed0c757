import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "./paths.js";

/** True where the NVIDIA driver shows a GPU to this process: as a device file, or to WSL. */
export function gpuIsVisible(devices = "/dev"): boolean {
  try {
    return existsSync(join(devices, "dxg")) || readdirSync(devices).some((name) => /^nvidia\d+$/.test(name));
  } catch {
    return false;
  }
}

/** Why the package has no CUDA module, from what CMake noted at the build. @param cache CMakeCache.txt. */
export function whyNoCudaModule(cache = join(packageRoot, "build", "CMakeCache.txt")): string {
  let notes = "";
  try {
    notes = readFileSync(cache, "utf8");
  } catch {
    return "nothing has been built";
  }
  if (/^DITRUN_CUDA:BOOL=(OFF|FALSE|NO|0)$/im.test(notes))
    return "the install was told to leave it out (DITRUN_CUDA=OFF)";
  if (/^CMAKE_CUDA_COMPILER:\w+=(.*NOTFOUND)?$/m.test(notes)) return "nvcc was not found at the install";
  return "its build did not end";
}
