import { existsSync } from "node:fs";
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { modelsDirectory, packageRoot, plansDirectory, tinyCheckpoint } from "../../src/launcher/paths.js";

const listSchema = z.array(z.object({ files: z.array(z.object({ path: z.string() })) }));
const manifestSchema = z.object({ scripts: z.record(z.string(), z.string()) });

/** Files below a folder of this repository, as npm lists them. */
async function below(folder: string): Promise<string[]> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  return found
    .filter((entry) => entry.isFile())
    .map((entry) => relative(packageRoot, join(entry.parentPath, entry.name)));
}

describe("the published package", () => {
  test("has the program, its configurations, the sources of the kernel modules and the tiny checkpoint", async () => {
    const { stdout } = await execa("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: packageRoot });
    const packed = new Set(listSchema.parse(JSON.parse(stdout)).flatMap(({ files }) => files.map(({ path }) => path)));
    const needed = [
      ...["package.json", "CMakeLists.txt", "scripts/build.js", "bin/ditrun.js", "dist/launcher/cli.js"],
      ...(
        await Promise.all([modelsDirectory, plansDirectory, tinyCheckpoint, join(packageRoot, "kernels")].map(below))
      ).flat(),
    ];
    expect(needed.filter((path) => !packed.has(path))).toEqual([]);
  });

  test("builds its kernel modules where it is installed, for which npm runs no prepare", async () => {
    const text = await readFile(join(packageRoot, "package.json"), "utf8");
    expect(manifestSchema.parse(JSON.parse(text)).scripts.install).toBe("node scripts/build.js --kernels");
  });

  test("has no TypeScript to compile, and no compiler for it", async () => {
    const folder = await mkdtemp(join(tmpdir(), "ditrun-package-"));
    await cp(join(packageRoot, "scripts"), join(folder, "scripts"), { recursive: true });
    await execa("node", ["scripts/build.js", "--typescript"], { cwd: folder });
    expect(existsSync(join(folder, "dist"))).toBe(false);
    await rm(folder, { recursive: true });
  });
});
