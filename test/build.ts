import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";

/** Before all tests: dist/ must be of this source, and the CPU module and the stand-in for NCCL must exist. */
export default function build(): void {
  const parts = existsSync("build/libditrun_cpu.so") ? ["--typescript"] : [];
  execFileSync(process.execPath, ["scripts/build.js", ...parts], { stdio: "inherit" });
  const standIn = "build/nccl-stand-in";
  if (!existsSync(`${standIn}/Makefile`))
    execFileSync("cmake", ["-S", "test/nccl-stand-in", "-B", standIn], { stdio: "ignore" });
  execFileSync("cmake", ["--build", standIn], { stdio: ["ignore", "ignore", "inherit"] });
}
