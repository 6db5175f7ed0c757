// package.json of each package of a release, made of that of the repository.

const KEPT = ["name", "version", "description", "keywords", "license", "author", "homepage", "repository", "bugs"];

/** The packages of compiled modules for this platform. npm takes them where os, cpu and libc fit, and runs no script. */
export const modulePackages = {
  cpu: { name: "@ditrun/linux-x64", what: "CPU kernel modules of ditrun for Linux x64 (glibc)" },
  cuda: { name: "@ditrun/linux-x64-cuda", what: "CUDA kernel module of ditrun for Linux x64 (glibc)" },
};

/** What the package has besides dist/ and what it runs on: sources of the kernels, for platforms without a package of modules. */
const sources = ["CMakeLists.txt", "kernels", "scripts/*.js"];

/**
 * @param manifest the repository's package.json.
 * @param parts "cpu" and perhaps "cuda": the packages of modules that the release has.
 * @returns package.json of the package itself: without scripts that npm would run, and with the modules as optional packages.
 */
export function releaseManifest(manifest, parts) {
  const { devDependencies: _, scripts: __, allowScripts: ___, optionalDependencies = {}, ...rest } = manifest;
  const modules = parts.map((part) => [modulePackages[part].name, manifest.version]);
  return {
    ...rest,
    files: ["bin", "configs", "dist", "docs", "models/wan-tiny", ...sources],
    scripts: { build: "node scripts/build.js" },
    optionalDependencies: { ...optionalDependencies, ...Object.fromEntries(modules) },
  };
}

/** @returns package.json of a package of modules. */
export function moduleManifest(manifest, part) {
  const kept = Object.fromEntries(KEPT.filter((key) => manifest[key] !== undefined).map((key) => [key, manifest[key]]));
  const { name, what } = modulePackages[part];
  return {
    ...kept,
    name,
    description: what,
    os: ["linux"],
    cpu: ["x64"],
    libc: ["glibc"],
    files: ["*.so"],
    preferUnplugged: true,
  };
}
