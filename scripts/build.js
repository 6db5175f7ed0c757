// Compiles TypeScript to dist/ and the kernel modules to build/. Runs at `npm ci` (the modules by the script install, TypeScript
// by prepare) and as `npm run build`. A published package has dist/ and no sources in TypeScript: there only the modules are built.
//   node scripts/build.js [--typescript] [--kernels]     both without a flag
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const only = process.argv.slice(2);
const wants = (part) => only.length === 0 || only.includes(part);

function run(command, args, missing) {
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  if (error) {
    console.error(`${command} could not be started (${error.code}): ${missing}`);
    process.exit(1);
  }
  if (status !== 0) {
    console.error(`${command} ${args.join(" ")} failed with ${signal ?? `exit code ${status}`}.`);
    process.exit(status ?? 1);
  }
}

if (wants("--typescript") && existsSync(join(root, "tsconfig.build.json"))) {
  run(join(root, "node_modules", ".bin", "tsc"), ["-p", "tsconfig.build.json"], "run npm ci first.");
}
if (wants("--kernels")) {
  const missing =
    "install cmake (at least 3.22), make and a C++20 compiler, for instance: apt-get install cmake g++ make.";
  run(
    "cmake",
    ["-S", ".", "-B", "build", ...(process.env.DITRUN_CMAKE_ARGS?.split(" ").filter(Boolean) ?? [])],
    missing,
  );
  run("cmake", ["--build", "build", "--parallel", String(availableParallelism())], missing);
}
