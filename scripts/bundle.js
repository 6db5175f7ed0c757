// Makes few files of a worker's many: eight workers on two cores would else spend more time on reading modules than on a small job,
// and a cluster's file system would serve hundreds of files to every rank.
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** What is started by itself in dist/worker/. */
const programs = ["main", "probe", "watchdog-thread"];

/**
 * Replaces the programs in dist/worker/ by bundles. What they share is in files `chunk-*.js` beside them, and is loaded when it is asked for.
 * Native modules, which must stay where npm put them, are left out.
 * @param root the package's folder, whose dist/ is compiled.
 */
export async function bundleWorker(root) {
  const { build } = await import("esbuild");
  const folder = join(root, "dist", "worker");
  const old = (await readdir(folder)).filter((name) => name.startsWith("chunk-"));
  for (const name of old) await rm(join(folder, name));
  await build({
    absWorkingDir: root,
    entryPoints: programs.map((name) => join(folder, `${name}.js`)),
    outdir: folder,
    allowOverwrite: true,
    bundle: true,
    splitting: true,
    chunkNames: "chunk-[hash]",
    format: "esm",
    platform: "node",
    target: "node20",
    external: ["koffi", "zeromq"],
    banner: { js: `import { createRequire } from "node:module"; const require = createRequire(import.meta.url);` },
    logLevel: "warning",
  });
}
