import { existsSync, readFileSync } from "node:fs";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { execa } from "execa";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  modelsDirectory,
  packageRoot,
  plansDirectory,
  probeEntry,
  tinyCheckpoint,
  workerEntry,
} from "../../src/paths.js";

const manifestSchema = z.object({
  files: z.array(z.string()),
  scripts: z.record(z.string(), z.string()),
  exports: z.record(z.string(), z.unknown()),
});
const manifest = manifestSchema.parse(JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")));

describe("the published package", () => {
  test("has the program, its configurations, the sources of the kernel modules and the tiny checkpoint", () => {
    const needed = [
      ...[modelsDirectory, plansDirectory, tinyCheckpoint, workerEntry, probeEntry].map((path) =>
        relative(packageRoot, path),
      ),
      ...["bin/ditrun.js", "dist/cli/main.js", "scripts/build.js", "CMakeLists.txt", "kernels/include/ditrun.h"],
    ];
    for (const path of needed) expect(existsSync(join(packageRoot, path))).toBe(true);
    const packed = (path: string) => manifest.files.some((entry) => `${path}/`.startsWith(`${entry}/`));
    expect(needed.filter((path) => !packed(path))).toEqual([]);
  });

  test("builds its kernel modules at an install from a clone", () => {
    expect(manifest.scripts.install).toBe("node scripts/build.js --kernels");
  });

  test("has no TypeScript to compile, and no compiler for it", async () => {
    const folder = await mkdtemp(join(tmpdir(), "ditrun-package-"));
    for (const part of ["bin", "scripts", "package.json"]) {
      await cp(join(packageRoot, part), join(folder, part), { recursive: true });
    }
    await execa("node", ["scripts/build.js", "--typescript"], { cwd: folder });
    expect(existsSync(join(folder, "dist"))).toBe(false);
    await rm(folder, { recursive: true });
  });

  test("opens the library and its own description, and nothing else", async () => {
    expect(Object.keys(manifest.exports)).toEqual([".", "./client", "./package.json"]);
    const script = `await import("ditrun/dist/failure.js")`;
    const deep = await execa("node", ["--input-type=module", "-e", script], { cwd: packageRoot, reject: false });
    expect(deep.stderr).toContain("ERR_PACKAGE_PATH_NOT_EXPORTED");
  });

  // Seconds of work, but of other programs, which wait for their turn on a busy machine.
  test("passes publint and are-the-types-wrong as it would be published", { timeout: 180_000 }, async () => {
    const folder = await mkdtemp(join(tmpdir(), "ditrun-package-"));
    const pack = ["pack", "--ignore-scripts", "--silent", "--pack-destination", folder];
    const { stdout } = await execa("npm", pack, { cwd: packageRoot });
    const tarball = join(folder, stdout.trim());
    const { messages, pkg } = await publint({
      pack: { tarball: Uint8Array.from(await readFile(tarball)).buffer },
      strict: true,
    });
    expect(messages.map((message) => formatMessage(message, pkg))).toEqual([]);
    const attw = ["attw", tarball, "--profile", "esm-only", "--format", "ascii", "--no-color", "--no-emoji"];
    const types = await execa("npx", ["--no-install", ...attw], { cwd: packageRoot, reject: false });
    expect(types.exitCode, types.stdout).toBe(0);
    await rm(folder, { recursive: true });
  });
});
