import { readFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { nodeIsTooOld, oldest } from "../../bin/node-version.js";
import { packageRoot } from "../../src/paths.js";

describe("a Node.js that is too old", () => {
  test.each(["12.22.12", "18.20.8", "20.18.3"])("as %s is told so with both versions", (version) => {
    expect(nodeIsTooOld(version)).toBe(
      `This is Node.js ${version} (${process.execPath}), and ditrun needs 20.19 or newer.`,
    );
  });

  test.each(["20.19.0", "20.20.2", "22.0.0", "100.0.0"])("is not %s", (version) => {
    expect(nodeIsTooOld(version)).toBeUndefined();
  });

  test("is what package.json says", () => {
    const { engines } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
    expect(engines.node).toBe(`>=${oldest.join(".")}`);
  });

  test.each([
    ["the program", ["bin/ditrun.js", "--version"]],
    ["the install", ["scripts/build.js", "--kernels"]],
  ])("ends %s before anything else", async (_, words) => {
    const versions = `{ ...process.versions, node: "18.20.8" }`;
    const fake = `data:text/javascript,Object.defineProperty(process, "versions", { value: ${versions} })`;
    const ended = await execa("node", ["--import", fake, ...words], { cwd: packageRoot, reject: false, all: true });
    expect(ended.exitCode).toBe(3);
    expect(ended.all).toMatch(/^ditrun: This is Node\.js 18\.20\.8 \(.*\), and ditrun needs 20\.19 or newer\.$/);
  });

  test("can read the files that tell it: no syntax or name that is newer than Node 12", () => {
    for (const file of ["bin/ditrun.js", "bin/node-version.js", "scripts/build.js"]) {
      const text = readFileSync(join(packageRoot, file), "utf8").replace(/\/\/.*|"(?:\\.|[^"\\])*"|`[^`]*`/g, '""');
      expect(text, file).not.toMatch(
        /\?\?|\?\.|\|\|=|&&=|^await |#\w+[ (;=]|\b\d+_\d|\.at\(|\.findLast|replaceAll|structuredClone/m,
      );
      expect(text, file).not.toMatch(/from "node:/);
    }
  });
});
