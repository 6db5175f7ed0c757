// Makes few files of the hundreds that a program loads. On a small job, reading modules took most of a worker's time, and a cluster's
// file system served them to every rank.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { buildPage } from "./page.js";

/** What is started by itself: programs and threads, by folder of dist/. What those of one folder share is in `chunk-*.js` there. */
const programs = {
  worker: ["main", "probe", "watchdog-thread"],
  // By itself, so that what it shares with workers does not divide their files.
  "worker/examine": ["main"],
  ".": [
    ...["cli/main", "cli/surroundings", "cli/standard-streams", "launcher/reaper"],
    ...["models/wan/text/tokenizer-thread", "video/encoder-thread"],
  ],
};

/** Packages that are taken in, being many files or slow to find. Others load files of their own by their place. */
const takenIn = ["zod", "yaml", "execa", "cli-table3", "@huggingface/tokenizers", "entities", "yauzl", "pickleparser"];

/** The notices of the packages in a bundle: their licences ask for them wherever their code is. */
function notices(root, inputs) {
  const found = new Map();
  for (const input of inputs) {
    const [, folder] = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input) ?? [];
    if (folder === undefined || found.has(folder)) continue;
    const { name, version, license } = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
    const file = readdirSync(join(root, folder)).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file === undefined ? "" : readFileSync(join(root, folder, file), "utf8").trim();
    found.set(folder, `${name} ${version} (${license})\n\n${text}\n`);
  }
  return [...found.values()].sort();
}

/** The script of a report's page, for a browser: it goes into every page. */
async function bundleReport(build, root) {
  await build({
    absWorkingDir: root,
    entryPoints: [join(root, "src", "views", "html", "browser", "main.ts")],
    outfile: join(root, "dist", "views", "html", "report.js"),
    bundle: true,
    minify: true,
    format: "iife",
    platform: "browser",
    target: ["chrome100", "firefox100", "safari15"],
    logLevel: "warning",
  });
}

/**
 * Replaces the programs in dist/ by bundles, which load the rest as they need it.
 * @param root the package's folder, whose dist/ has just been compiled.
 */
export async function bundle(root) {
  const { build } = await import("esbuild");
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const apart = Object.keys(dependencies).filter((name) => !takenIn.includes(name));
  const inputs = new Set();
  for (const [part, names] of Object.entries(programs)) {
    const folder = join(root, "dist", part);
    const { metafile } = await build({
      absWorkingDir: root,
      entryPoints: names.map((name) => join(folder, `${name}.js`)),
      outdir: folder,
      outbase: folder,
      allowOverwrite: true,
      bundle: true,
      splitting: true,
      chunkNames: "chunk-[hash]",
      format: "esm",
      platform: "node",
      target: "node20",
      // paths.js finds the package by its own place.
      external: [...apart, join(root, "dist", "paths.js")],
      // For packages of CommonJS.
      banner: {
        js: 'import { createRequire as requireOf } from "node:module";\nconst require = requireOf(import.meta.url);',
      },
      metafile: true,
      logLevel: "warning",
    });
    for (const input of Object.keys(metafile.inputs)) inputs.add(input);
    // Only now, since a program that runs meanwhile may still ask for one: what has not changed keeps its name.
    const made = new Set(Object.keys(metafile.outputs).map((file) => join(root, file)));
    for (const name of await readdir(folder)) {
      if (name.startsWith("chunk-") && !made.has(join(folder, name))) await rm(join(folder, name));
    }
  }
  for (const input of await buildPage(root)) inputs.add(input);
  await bundleReport(build, root);
  writeFileSync(join(root, "dist", "licenses.txt"), notices(root, inputs).join(`\n${"-".repeat(80)}\n\n`));
}
