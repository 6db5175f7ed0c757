import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { z } from "zod";
import { builtKernels, packageRoot } from "../paths.js";
import { thisCpuLevel } from "./cpu-level.js";

/** A kernel module of this install, or a sentence on why there is none and what to do. */
export type FoundModule = { readonly file: string; readonly built: boolean } | { readonly missing: string };

/** What an install is, for the search. */
export interface Install {
  /** The folder of the package. */
  readonly root: string;
  /** The module that a build here makes. */
  readonly built: (device: "cpu" | "cuda") => string;
  readonly cpuLevel: typeof thisCpuLevel;
  readonly platform: string;
}

const thisInstall: Install = {
  root: packageRoot,
  built: builtKernels,
  cpuLevel: thisCpuLevel,
  platform: `${process.platform}-${process.arch}`,
};

/**
 * The module for a device: the one that was built here, else that of the package that a release has for this platform.
 * Of the CPU modules of a release it is the one for the highest level that the processor has.
 */
export function findKernels(device: "cpu" | "cuda", install: Install = thisInstall): FoundModule {
  const built = install.built(device);
  if (existsSync(built)) return { file: built, built: true };
  const name = `@ditrun/${install.platform}${device === "cuda" ? "-cuda" : ""}`;
  const folder = folderOf(name, install.root);
  if (folder === undefined) return { missing: whyNot(device, name, install) };
  if (device === "cuda") return inPackage(join(folder, "libditrun_cuda.so"), name);
  const { level, lacks } = install.cpuLevel();
  if (level !== undefined) return inPackage(join(folder, `libditrun_cpu.${level}.so`), name);
  return {
    missing: `The modules of ${name} need x86-64-v2, and this processor lacks ${lacks.join(", ")}. ${buildIt(install, "DITRUN_CMAKE_ARGS=-DDITRUN_CPU_ARCH=x86-64 ")}`,
  };
}

function inPackage(file: string, name: string): FoundModule {
  if (existsSync(file)) return { file, built: false };
  return { missing: `${name} is damaged, since ${file} does not exist. Install it again.` };
}

/** The folder of an installed package, as Node.js finds it from here; undefined where there is none. */
function folderOf(name: string, root: string): string | undefined {
  try {
    return dirname(createRequire(join(root, "package.json")).resolve(`${name}/package.json`));
  } catch {
    return undefined;
  }
}

const manifestSchema = z.object({
  version: z.string(),
  optionalDependencies: z.record(z.string(), z.string()).default({}),
});

/** Why there is neither a module that was built here nor a package with one, and the way out. */
function whyNot(device: "cpu" | "cuda", name: string, install: Install): string {
  const note = device === "cuda" ? noteOfBuild(install.root) : undefined;
  if (note !== undefined) return note;
  const manifest = manifestSchema.parse(JSON.parse(readFileSync(join(install.root, "package.json"), "utf8")));
  if (manifest.optionalDependencies[name] !== undefined) {
    return `${name} is not installed. Optional packages were left out: npm install ${name}@${manifest.version} adds it.`;
  }
  const modules = device === "cuda" ? "The CUDA module is not built" : "The CPU module is not built";
  const released = Object.keys(manifest.optionalDependencies).some((key) => key.startsWith("@ditrun/"));
  const why = released ? `, and this release has none for ${install.platform}` : "";
  return `${modules}${why}. ${buildIt(install)}`;
}

function buildIt(install: Install, variables = ""): string {
  return `Build it: cd ${install.root} && ${variables}npm run build -- --kernels`;
}

/** What scripts/build.js wrote of a CUDA module that it did not make. */
function noteOfBuild(root: string): string | undefined {
  try {
    const [line = ""] = readFileSync(join(root, "build", "cuda.txt"), "utf8").split("\n");
    return line === "" ? undefined : line;
  } catch {
    return undefined; // No build, or one that made the module.
  }
}
