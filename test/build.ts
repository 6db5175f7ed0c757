import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { builtKernels, packageRoot } from "../src/launcher/paths.js";

/** Before any test: dist/ from the present sources, and the CPU kernel module if it is missing. */
export default function build(): void {
  const parts = existsSync(builtKernels("cpu")) ? ["--typescript"] : ["--typescript", "--kernels"];
  const { status } = spawnSync(process.execPath, [join(packageRoot, "scripts", "build.js"), ...parts], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (status !== 0) throw new Error(`scripts/build.js ${parts.join(" ")} failed.`);
}
