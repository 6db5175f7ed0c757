// The compiled modules of a release: which there are, and how cmake makes them.
import { execFile } from "node:child_process";
import { copyFile, mkdir, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { cmake } from "../progress.js";
import { checkSymbols } from "./symbols.js";

/** Levels of x86-64 with a CPU module. The tree of the first is that of `npm run build`, whose object files serve both. */
export const cpuLevels = { "x86-64-v3": "build", "x86-64-v2": "build/release/x86-64-v2" };

/** A100 (with PTX for the parts that come after), A10 and RTX 30, L40 and RTX 40, H100. */
const CUDA_ARCHITECTURES = "80;86-real;89-real;90a-real";

async function make(root, tree, target, settings, name) {
  const steps = [
    ["-S", ".", "-B", tree, ...settings],
    ["--build", tree, "--target", target, "--parallel", String(availableParallelism())],
  ];
  for (const args of steps) {
    const { code, signal, error } = await cmake(args, root, name);
    if (code !== 0)
      throw new Error(`cmake ${args.join(" ")} failed (${error?.code ?? signal ?? `exit code ${code}`}).`);
  }
}

/** @returns what a CPU module for a level is, in the folder `to`. */
export async function makeCpuModule(root, level, to) {
  const tree = cpuLevels[level];
  const settings = [`-DDITRUN_CPU_ARCH=${level}`, "-DDITRUN_CUDA=OFF"];
  await make(root, tree, "ditrun_cpu_portable", settings, `CPU module for ${level}`);
  return keep(join(root, tree, "portable", "libditrun_cpu.so"), to, `libditrun_cpu.${level}.so`);
}

/** @returns what the CUDA module is, in the folder `to`. */
export async function makeCudaModule(root, to) {
  const tree = "build/release/cuda";
  const settings = ["-DDITRUN_CPU=OFF", "-DDITRUN_CUDA=ON", `-DDITRUN_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES}`];
  await make(root, tree, "ditrun_cuda_portable", settings, "CUDA module");
  return keep(join(root, tree, "portable", "libditrun_cuda.so"), to, "libditrun_cuda.so");
}

/** Checks a module and copies it. @returns { file, bytes }. */
async function keep(module, to, name) {
  await checkSymbols(module);
  await mkdir(to, { recursive: true });
  const file = join(to, name);
  await copyFile(module, file);
  return { file, bytes: (await stat(file)).size };
}

/** @returns the release of the nvcc that cmake would take; undefined where there is none. */
export async function nvccVersion() {
  try {
    const { stdout } = await promisify(execFile)(process.env.CUDACXX || "nvcc", ["--version"]);
    return /release ([\d.]+)/.exec(stdout)?.[1];
  } catch {
    return undefined;
  }
}
