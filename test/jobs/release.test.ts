// A release as its users have it: packed, installed without scripts where nothing is, and run.
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../src/paths.js";

const MINUTES = 60_000;
const mainJob = ["--nproc", "8", "--cp", "4", "--tp", "2", "profile"];
/** Nothing that builds: no compiler, no cmake, no nvcc. */
const bare = { PATH: "", DITRUN_KERNELS: "", MASTER_PORT: "" };

let folder = "";
let tarballs: string[] = [];

// Of the CPU modules the one whose object files the tests' own build has made.
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ditrun-release-"));
  const args = ["scripts/release/pack.js", "--no-cuda", "--levels", "x86-64-v3", "--out", join(folder, "release")];
  await execa("node", args, { cwd: packageRoot });
  tarballs = (await readdir(join(folder, "release"))).sort().map((name) => join(folder, "release", name));
}, 5 * MINUTES);
afterAll(() => rm(folder, { recursive: true }));

const install = (...args: string[]) => {
  const quiet = ["--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel", "error"];
  return execa("npm", ["install", ...quiet, ...args, ...tarballs], { cwd: folder });
};

/** Runs the main job with the modules of the release. @returns its JSON document. */
async function runMainJob(program: string) {
  const { stdout } = await execa(process.execPath, [program, ...mainJob, "--json"], { cwd: folder, env: bare });
  return JSON.parse(stdout);
}

describe.runIf(process.arch === "x64")("a release", () => {
  test("is the package and one of modules, and no more than that", async () => {
    const { version } = JSON.parse(await readFile(join(packageRoot, "package.json"), "utf8"));
    expect(tarballs.map((file) => file.split("/").at(-1))).toEqual([
      `ditrun-${version}.tgz`,
      `ditrun-linux-x64-${version}.tgz`,
    ]);
    for (const file of tarballs) expect((await stat(file)).size).toBeLessThan(12e6);
  });

  test("runs the main job where it is installed without scripts and without a compiler", {
    timeout: 3 * MINUTES,
  }, async () => {
    await install("--prefix", folder);
    const installed = join(folder, "node_modules", "ditrun");
    const { scripts, devDependencies } = JSON.parse(await readFile(join(installed, "package.json"), "utf8"));
    expect({ scripts, devDependencies }).toEqual({ scripts: { build: "node scripts/build.js" } });
    const document = await runMainJob(join(folder, "node_modules", ".bin", "ditrun"));
    expect(document.ranks).toHaveLength(8);
  });

  test("runs it where it is installed for all of a host", { timeout: 3 * MINUTES }, async () => {
    const prefix = join(folder, "global");
    await install("--global", "--prefix", prefix);
    const document = await runMainJob(join(prefix, "bin", "ditrun"));
    expect(document.ranks).toHaveLength(8);
  });

  test("says what is missing where its optional packages were left out", { timeout: MINUTES }, async () => {
    await rm(join(folder, "node_modules", "@ditrun"), { recursive: true });
    const program = join(folder, "node_modules", ".bin", "ditrun");
    const failed = await execa(process.execPath, [program, "profile"], { cwd: folder, env: bare, reject: false });
    expect(failed.exitCode).toBe(3);
    expect(failed.stderr).toMatch(
      /ditrun: There is no kernel module for the CPU\. @ditrun\/linux-x64 is not installed\. Optional packages were left out: npm install @ditrun\/linux-x64@/,
    );
  });
});
