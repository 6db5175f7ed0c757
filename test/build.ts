import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";

/** Before all tests: dist/ must be of this source, and the CPU module must exist. */
export default function build(): void {
  const parts = existsSync("build/libditrun_cpu.so") ? ["--typescript"] : [];
  execFileSync(process.execPath, ["scripts/build.js", ...parts], { stdio: "inherit" });
}
