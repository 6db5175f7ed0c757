// The CUDA module's part of a build: whether there is an nvcc to make it with, and one sentence on what came of it.
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { cmake } from "./progress.js";
import { run } from "./run.js";

/** The first CUDA whose compiler knows C++20. */
const OLDEST_CUDA = 12;
const AGAIN = "npm run build -- --kernels";
const USUAL_NVCC = "/usr/local/cuda/bin/nvcc";

/** @returns "ON", "OFF" or "AUTO", by the last -DDITRUN_CUDA among cmake's arguments. */
export function cudaWanted(cmakeArguments) {
  const value = cmakeArguments.findLast((word) => /^-DDITRUN_CUDA(:BOOL)?=/.test(word))?.split("=")[1];
  if (value === undefined) return "AUTO";
  return /^(on|yes|true|y|1)$/i.test(value) ? "ON" : "OFF";
}

/** The nvcc that cmake would take: named by an argument or by CUDACXX, or the first on PATH; undefined where there is none. */
function findNvcc(cmakeArguments) {
  const named = cmakeArguments.findLast((word) => word.startsWith("-DCMAKE_CUDA_COMPILER="))?.split("=")[1];
  if (named !== undefined) return named;
  if (process.env.CUDACXX) return process.env.CUDACXX;
  const folders = (process.env.PATH ?? "").split(delimiter);
  if (process.env.CUDA_PATH) folders.push(join(process.env.CUDA_PATH, "bin"));
  return folders.map((folder) => join(folder, "nvcc")).find((file) => existsSync(file));
}

/** @returns why this nvcc cannot make the module; undefined where it may. */
async function fault(nvcc) {
  const folder = await mkdtemp(join(tmpdir(), "ditrun-nvcc-"));
  try {
    const version = await quietly(nvcc, ["--version"], folder);
    if (version.reason !== undefined) return version.reason;
    const release = /release (\d+)\.(\d+)/.exec(version.text);
    if (release === null) return "nvcc --version names no release of CUDA";
    if (Number(release[1]) < OLDEST_CUDA) {
      return `it is of CUDA ${release[1]}.${release[2]}, and the first that knows C++20 is ${OLDEST_CUDA}.0`;
    }
    // An nvcc whose host compiler is missing or too new says so here, in its own words.
    await writeFile(join(folder, "smallest.cu"), "__global__ void nothing() {}\n");
    return (await quietly(nvcc, ["-std=c++20", "-c", "smallest.cu", "-o", "smallest.o"], folder)).reason;
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Runs a command and shows nothing. @returns its output, and where it fails the reason. */
async function quietly(command, args, folder) {
  let text = "";
  const { code, signal, error, firstError } = await run(command, args, folder, (chunk) => {
    text += chunk;
  });
  if (error) return { text, reason: `it could not be started (${error.code})` };
  if (code === 0) return { text };
  const words = firstError ?? text.trim().split("\n")[0];
  return { text, reason: `${words === "" ? args[0] : words} (${signal ?? `exit code ${code}`})` };
}

/**
 * Builds build/libditrun_cuda.so with a CMake tree of its own, build/cuda, where nvcc is there and can be used.
 * A module that an earlier build left is removed when this one fails: it is of other sources.
 * @returns { built, sentence }: the sentence says what there is now, why, and what to do.
 */
export async function buildCuda(root, wanted, cmakeArguments, parallel) {
  const module = join(root, "build", "libditrun_cuda.so");
  const instead = existsSync(module) ? "the one there is of an earlier build" : "ditrun runs on the CPU";
  if (wanted === "OFF") {
    return {
      built: false,
      sentence: `The CUDA module is not built, as DITRUN_CUDA=OFF asks: ${instead}. For NVIDIA GPUs: ${AGAIN}`,
    };
  }
  const nvcc = findNvcc(cmakeArguments);
  if (nvcc === undefined) {
    const way = existsSync(USUAL_NVCC) ? `CUDACXX=${USUAL_NVCC} ${AGAIN}` : `install CUDA's nvcc, then ${AGAIN}`;
    return {
      built: false,
      sentence: `The CUDA module is not built, since nvcc is not on PATH: ${instead}. For NVIDIA GPUs: ${way}`,
    };
  }
  const reason = (await fault(nvcc)) ?? (await make(nvcc, root, cmakeArguments, parallel));
  if (reason === undefined) return { built: true, sentence: "The CUDA module is built: build/libditrun_cuda.so." };
  await rm(module, { force: true });
  return {
    built: false,
    sentence: `The CUDA module is not built, since ${nvcc} cannot be used: ${reason}. ditrun runs on the CPU. To try again: ${AGAIN}`,
  };
}

/** @returns the first error, undefined where the module is there. */
async function make(nvcc, root, cmakeArguments, parallel) {
  const tree = join("build", "cuda");
  console.log(
    `ditrun: ${nvcc} compiles the CUDA module; that takes some minutes (DITRUN_CMAKE_ARGS=-DDITRUN_CUDA=OFF leaves it out).`,
  );
  const settings = [`-DCMAKE_CUDA_COMPILER=${nvcc}`, `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${join(root, "build")}`];
  const modules = ["-DDITRUN_CPU=OFF", "-DDITRUN_CUDA=ON"];
  const configured = await cmake(["-S", ".", "-B", tree, ...settings, ...cmakeArguments, ...modules], root);
  if (configured.code !== 0) {
    // CMake keeps what it found out about a compiler, also after that compiler is mended.
    await rm(join(root, tree), { recursive: true, force: true });
    return configured.firstError ?? "cmake could not configure it";
  }
  const built = await cmake(["--build", tree, ...parallel], root, "CUDA module");
  return built.code === 0 ? undefined : (built.firstError ?? "it could not be compiled");
}
