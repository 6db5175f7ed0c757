import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, it, test } from "vitest";

const foldersOf = (module: string) =>
  readdirSync(join("kernels", module)).filter((name) => statSync(join("kernels", module, name)).isDirectory());

const sources = readdirSync("kernels", { recursive: true, encoding: "utf8" })
  .filter((file) => /\.(cpp|cuh?|h)$/.test(file))
  .map((file) => ({ file, text: readFileSync(join("kernels", file), "utf8") }));

test("both modules have the same folders, except for what only one of them needs", () => {
  const shared = [
    "attention",
    "conv",
    "decode",
    "elementwise",
    "embedding",
    "gemm",
    "norm",
    "peer",
    "quantize",
    "runtime",
  ];
  expect(foldersOf("cpu").sort()).toEqual([...shared, "tcp"].sort());
  expect(foldersOf("cuda").sort()).toEqual([...shared, "ptx", "tiles"].sort());
});

/** Which folder of a module defines each function of the ABI. */
function placesOf(module: string): Record<string, string> {
  const places: Record<string, string> = {};
  for (const { file, text } of sources) {
    const [root, folder = ""] = file.split("/");
    if (root !== module) continue;
    for (const [, name = ""] of text.matchAll(/^(?:int|const char \*)\s?(ditrun_\w+)\(/gm)) places[name] = folder;
  }
  return places;
}

test("an operator lies in the same folder of both modules", () => {
  const cpu = placesOf("cpu");
  expect(Object.keys(cpu).length).toBeGreaterThan(60);
  expect(placesOf("cuda")).toEqual(cpu);
});

it.for(sources)("$file has lines of 120 columns at most, messages aside", ({ file, text }) => {
  // The header's formulas and lists are laid out by hand.
  if (file.startsWith("include/")) return;
  const long = text.split("\n").filter((line) => [...line].length > 120 && !line.includes('"'));
  expect(long).toEqual([]);
});

it.for(sources)("$file names its functions in camel case", ({ file, text }) => {
  if (file.startsWith("include/")) return;
  const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, "").replace(/"(?:\\.|[^"\\])*"/g, '""');
  const defined = code.matchAll(/^\s*(?:[\w:<>,*&]+ +)+[*&]*([a-z]\w*_\w+)\([^;{}]*\)(?: const)? \{/gm);
  expect([...defined].map(([, name = ""]) => name).filter((name) => !name.startsWith("ditrun_"))).toEqual([]);
});
