// There is no docker where the tests run: what can be read of the images is.
import { readFileSync } from "node:fs";
import { join, matchesGlob } from "node:path";
import { describe, expect, test } from "vitest";
import { modulePackages } from "../../scripts/release/manifests.js";
import { packageRoot } from "../../src/paths.js";

const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
const tarballs = ["ditrun", ...Object.values(modulePackages).map(({ name }) => name.slice(1).replace("/", "-"))].map(
  (name) => `release/${name}-${version}.tgz`,
);

/** Instructions of a Dockerfile with their text, continued lines joined. */
function instructionsOf(file: string): { name: string; text: string }[] {
  const text = readFileSync(join(packageRoot, "docker", file), "utf8").replace(/\\\n/g, " ");
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return lines.map((line) => ({ name: line.split(" ")[0] ?? "", text: line.slice(line.indexOf(" ") + 1) }));
}

describe.each([
  ["Dockerfile", tarballs],
  ["Dockerfile.cpu", tarballs.slice(0, 2)],
])("docker/%s", (file, expected) => {
  const instructions = instructionsOf(file);
  const last = (name: string) => instructions.findLast((instruction) => instruction.name === name)?.text;

  test("starts ditrun itself, not by a shell, as a user of its own", () => {
    expect(JSON.parse(last("ENTRYPOINT") ?? "")).toEqual(["node", "/opt/ditrun/bin/ditrun"]);
    expect(JSON.parse(last("CMD") ?? "")).toEqual(["--help"]);
    expect(last("USER")).toBe("ditrun");
    expect(last("WORKDIR")).toBe("/work");
    expect(last("HEALTHCHECK")).toBe("NONE");
    const names = instructions.map(({ name }) => name);
    expect(names.lastIndexOf("RUN")).toBeLessThan(names.lastIndexOf("USER"));
  });

  test("copies the tarballs of a release that it needs", () => {
    const patterns = instructions
      .filter(({ name, text }) => name === "COPY" && !text.startsWith("--from"))
      .flatMap(({ text }) => text.split(" ").slice(0, -1));
    expect(tarballs.filter((path) => patterns.some((pattern) => matchesGlob(path, pattern)))).toEqual(expected);
  });

  test("names every argument and stage that it uses", () => {
    const declared = instructions.filter(({ name }) => name === "ARG").map(({ text }) => text.split("=")[0]);
    const set = instructions.filter(({ name }) => name === "ENV").flatMap(({ text }) => text.match(/\w+(?==)/g) ?? []);
    const used = instructions.flatMap(({ text }) => [...text.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name));
    expect(used.filter((name) => ![...declared, ...set].includes(name ?? ""))).toEqual([]);
    const stages = instructions
      .filter(({ name }) => name === "FROM")
      .flatMap(({ text }) => / AS (\w+)/.exec(text)?.[1] ?? []);
    const from = instructions.flatMap(({ text }) => /--from=(\w+)/.exec(text)?.[1] ?? []);
    expect(from.filter((stage) => !stages.includes(stage))).toEqual([]);
  });
});
