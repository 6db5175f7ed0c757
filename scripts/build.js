// Compiles TypeScript to dist/ and the kernel modules to build/. Runs at `npm ci` (the modules by the script install, TypeScript
// by prepare) and as `npm run build`. A published package has dist/ and no sources in TypeScript: there only the modules are built.
//   node scripts/build.js [--typescript] [--kernels]     both without a flag
// DITRUN_CMAKE_ARGS goes to cmake: -DDITRUN_CUDA=OFF leaves out the CUDA module, and with =ON the build fails where it cannot be made.
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildCuda, cudaWanted } from "./cuda.js";
import { run } from "./run.js";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const only = process.argv.slice(2);
const wants = (part) => only.length === 0 || only.includes(part);
const cmakeArguments = process.env.DITRUN_CMAKE_ARGS?.split(" ").filter(Boolean) ?? [];
const parallel = ["--parallel", String(availableParallelism())];

/** Runs a command that the build cannot do without. */
async function need(command, args, missing) {
  const { code, signal, error } = await run(command, args, root);
  if (error) {
    console.error(`${command} could not be started (${error.code}): ${missing}`);
    process.exit(1);
  }
  if (code !== 0) {
    console.error(`${command} ${args.join(" ")} failed with ${signal ?? `exit code ${code}`}.`);
    process.exit(code ?? 1);
  }
}

async function buildKernels() {
  const tools =
    "install cmake (at least 3.18), make and a C++20 compiler, for instance: apt-get install cmake g++ make.";
  // The CUDA module is a step of its own, so that an nvcc that cannot be used leaves the CPU module built.
  await need("cmake", ["-S", ".", "-B", "build", ...cmakeArguments, "-DDITRUN_CUDA=OFF"], tools);
  await need("cmake", ["--build", "build", ...parallel], tools);
  const wanted = cudaWanted(cmakeArguments);
  const { built, sentence } = await buildCuda(root, wanted, cmakeArguments, parallel);
  console.log(`\nditrun: The CPU module is built: build/libditrun_cpu.so.`);
  console.log(sentence);
  console.log("Next: npx ditrun --nproc 8 --cp 4 --tp 2 profile");
  if (wanted === "ON" && !built) process.exit(1);
}

/** `npx` in a clone links the clone into its cache, and so runs both install scripts once more: nothing is left to do then. */
const builtBefore = ["dist/cli/main.js", "build/libditrun_cpu.so"].every((file) => existsSync(join(root, file)));
if (process.env.npm_command === "exec" && builtBefore) process.exit(0);

if (wants("--typescript") && existsSync(join(root, "tsconfig.build.json"))) {
  await need(join(root, "node_modules", ".bin", "tsc"), ["-p", "tsconfig.build.json"], "run npm ci first.");
}
if (wants("--kernels")) await buildKernels();
