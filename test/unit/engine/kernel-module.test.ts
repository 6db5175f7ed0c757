import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { findKernels, type Install } from "../../../src/engine/kernel-module.js";

let root: string;
let install: Install;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "ditrun-test-"));
  mkdirSync(join(root, "build"));
  describeInstall({});
  install = {
    root,
    built: (device) => join(root, "build", `libditrun_${device}.so`),
    cpuLevel: () => ({ level: "x86-64-v2", lacks: [] }),
    platform: "linux-x64",
  };
});
afterEach(() => rmSync(root, { recursive: true }));

function describeInstall(optionalDependencies: Record<string, string>) {
  writeFileSync(join(root, "package.json"), JSON.stringify({ version: "1.2.3", optionalDependencies }));
}

/** Puts a package of modules beside the install, as npm does. */
function addPackage(name: string, ...files: string[]): string {
  const folder = join(root, "node_modules", name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name, version: "1.2.3" }));
  for (const file of files) writeFileSync(join(folder, file), "");
  return folder;
}

describe("the kernel module of an install", () => {
  test("is the one that was built here, also beside a package", () => {
    addPackage("@ditrun/linux-x64", "libditrun_cpu.x86-64-v2.so");
    writeFileSync(install.built("cpu"), "");
    expect(findKernels("cpu", install)).toEqual({ file: install.built("cpu"), built: true });
  });

  test("is that of the platform's package for the processor's level", () => {
    const folder = addPackage("@ditrun/linux-x64", "libditrun_cpu.x86-64-v2.so", "libditrun_cpu.x86-64-v3.so");
    expect(findKernels("cpu", install)).toEqual({ file: join(folder, "libditrun_cpu.x86-64-v2.so"), built: false });
    const fast: Install = { ...install, cpuLevel: () => ({ level: "x86-64-v3", lacks: [] }) };
    expect(findKernels("cpu", fast)).toEqual({ file: join(folder, "libditrun_cpu.x86-64-v3.so"), built: false });
    const cuda = addPackage("@ditrun/linux-x64-cuda", "libditrun_cuda.so");
    expect(findKernels("cuda", install)).toEqual({ file: join(cuda, "libditrun_cuda.so"), built: false });
  });

  test("is none for a processor below all levels, which is told with the way out", () => {
    addPackage("@ditrun/linux-x64", "libditrun_cpu.x86-64-v2.so");
    const old: Install = { ...install, cpuLevel: () => ({ level: undefined, lacks: ["sse4_2"] }) };
    expect(findKernels("cpu", old)).toEqual({
      missing: `The modules of @ditrun/linux-x64 need x86-64-v2, and this processor lacks sse4_2. Build it: cd ${root} && DITRUN_CMAKE_ARGS=-DDITRUN_CPU_ARCH=x86-64 npm run build -- --kernels`,
    });
  });

  test("is none where its file is gone from the package", () => {
    addPackage("@ditrun/linux-x64-cuda");
    expect(findKernels("cuda", install)).toMatchObject({
      missing: expect.stringMatching(
        /^@ditrun\/linux-x64-cuda is damaged, since .*libditrun_cuda\.so does not exist\./,
      ),
    });
  });

  test("is none in a clone without a build", () => {
    const way = `Build it: cd ${root} && npm run build -- --kernels`;
    expect(findKernels("cpu", install)).toEqual({ missing: `The CPU module is not built. ${way}` });
    expect(findKernels("cuda", install)).toEqual({ missing: `The CUDA module is not built. ${way}` });
  });

  test("is none where the build could not make it, in the build's words", () => {
    writeFileSync(join(root, "build", "cuda.txt"), "The CUDA module is not built, since nvcc is not on PATH.\n");
    expect(findKernels("cuda", install)).toEqual({
      missing: "The CUDA module is not built, since nvcc is not on PATH.",
    });
  });

  test("is none where npm left the optional packages out, or the release has none for the platform", () => {
    describeInstall({ "@ditrun/linux-x64": "1.2.3", "@ditrun/linux-x64-cuda": "1.2.3" });
    expect(findKernels("cuda", install)).toEqual({
      missing:
        "@ditrun/linux-x64-cuda is not installed. Optional packages were left out: npm install @ditrun/linux-x64-cuda@1.2.3 adds it.",
    });
    expect(findKernels("cpu", { ...install, platform: "linux-arm64" })).toEqual({
      missing: `The CPU module is not built, and this release has none for linux-arm64. Build it: cd ${root} && npm run build -- --kernels`,
    });
  });
});
