import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { moduleManifest, releaseManifest } from "../../scripts/release/manifests.js";
import { tooNew } from "../../scripts/release/symbols.js";
import { packageRoot } from "../../src/paths.js";

const manifest = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));

describe("package.json of a release", () => {
  test("has no script that npm runs at an install, and names the modules of its own version", () => {
    const released = releaseManifest(manifest, ["cpu", "cuda"]);
    expect(Object.keys(released.scripts)).toEqual(["build"]);
    expect(released).not.toHaveProperty("devDependencies");
    expect(released.optionalDependencies).toEqual({
      "@ditrun/linux-x64": manifest.version,
      "@ditrun/linux-x64-cuda": manifest.version,
    });
    expect(Object.keys(releaseManifest(manifest, ["cpu"]).optionalDependencies)).toEqual(["@ditrun/linux-x64"]);
    for (const key of ["bin", "main", "types", "exports", "engines", "dependencies"]) {
      expect(released[key]).toEqual(manifest[key]);
    }
  });

  test("of modules fits one kind of machine, and has the licence and version of the whole", () => {
    expect(moduleManifest(manifest, "cuda")).toMatchObject({
      name: "@ditrun/linux-x64-cuda",
      version: manifest.version,
      license: manifest.license,
      os: ["linux"],
      cpu: ["x64"],
      libc: ["glibc"],
    });
    expect(moduleManifest(manifest, "cpu")).not.toHaveProperty("dependencies");
  });
});

describe("symbols of a module", () => {
  const line = (version: string, name: string) =>
    `0000000000000000      DF *UND*\t0000000000000000 (${version}) ${name}\n`;

  test("may be of glibc 2.31 and of what Node.js needs", () => {
    const old = ["GLIBC_2.2.5", "GLIBC_2.31", "GLIBC_2.4", "GCC_3.0"].map((version) => line(version, "f")).join("");
    expect(tooNew(old, "  NEEDED               libc.so.6\n  NEEDED               libgcc_s.so.1\n")).toEqual([]);
  });

  test("are told where they are newer, as are libraries that have to be installed", () => {
    const dynamic =
      line("GLIBC_2.34", "dlopen") + line("GLIBCXX_3.4.30", "wait") + line("GLIBC_3.0", "g") + line("GLIBC_2.9", "h");
    const headers = "  NEEDED               libgomp.so.1\n  RUNPATH              /home/me/build\n";
    expect(tooNew(dynamic, headers)).toEqual([
      "dlopen of GLIBC 2.34",
      "wait of GLIBCXX 3.4.30",
      "g of GLIBC 3.0",
      "the library libgomp.so.1",
      "libraries in /home/me/build",
    ]);
  });
});
