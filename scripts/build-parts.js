// Compiles TypeScript to dist/ and the kernel modules to build/. Runs at `npm ci` (the modules by the script install, TypeScript
// by prepare) and as `npm run build`. A published package has dist/ and no sources in TypeScript: there only the modules are built.
//   node scripts/build.js [--typescript] [--kernels]     both without a flag
// DITRUN_CMAKE_ARGS goes to cmake: -DDITRUN_CUDA=OFF leaves out the CUDA module, and with =ON the build fails where it cannot be made.
import { existsSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundle } from "./bundle.js";
import { buildCuda, cudaWanted } from "./cuda.js";
import { cmake } from "./progress.js";
import { run } from "./run.js";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const only = process.argv.slice(2);
const wants = (part) => only.length === 0 || only.includes(part);
const cmakeArguments = process.env.DITRUN_CMAKE_ARGS?.split(" ").filter(Boolean) ?? [];
const parallel = ["--parallel", String(availableParallelism())];

/** Ends the build where a command that it cannot do without has failed. */
function need(command, args, { code, signal, error }, missing) {
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
  const configure = ["-S", ".", "-B", "build", ...cmakeArguments, "-DDITRUN_CUDA=OFF"];
  need("cmake", configure, await cmake(configure, root), tools);
  const make = ["--build", "build", ...parallel];
  need("cmake", make, await cmake(make, root, "CPU module"), tools);
  const wanted = cudaWanted(cmakeArguments);
  const { built, sentence } = await buildCuda(root, wanted, cmakeArguments, parallel);
  // Commands cite it where they cannot use a GPU (src/engine/kernel-module.ts).
  const note = join(root, "build", "cuda.txt");
  if (built) await rm(note, { force: true });
  else await writeFile(note, `${sentence}\n`);
  console.log(`ditrun: The CPU module is built: build/libditrun_cpu.so.`);
  console.log(sentence);
  console.log("Next: npx ditrun --nproc 8 --cp 4 --tp 2 profile");
  if (wanted === "ON" && !built) process.exit(1);
}

/** `npx` in a clone links the clone into its cache, and so runs both install scripts once more: nothing is left to do then. */
const builtBefore = ["dist/cli/main.js", "build/libditrun_cpu.so"].every((file) => existsSync(join(root, file)));
if (process.env.npm_command === "exec" && builtBefore) process.exit(0);

if (wants("--typescript") && existsSync(join(root, "tsconfig.build.json"))) {
  const tsc = join(root, "node_modules", ".bin", "tsc");
  const args = ["-p", "tsconfig.build.json"];
  need(tsc, args, await run(tsc, args, root), "run npm ci first.");
  await bundle(root);
}
if (wants("--kernels")) await buildKernels();
