import { expect, test } from "vitest";
import { foreignOptions } from "../../../src/cli/aliases.js";
import { commands } from "../../../src/cli/commands/index.js";
import { pages, textOf, withoutFences } from "./pages.js";

const declared = new Set(["help", "version", ...commands.flatMap(({ options }) => Object.keys(options))]);

/** Options of other programs, on the pages that speak of those: npm's, Docker's, CMake's, Slurm's and the scripts'. */
const others = [
  "ignore-scripts",
  "gpus",
  "pids-limit",
  "compile",
  "times-only",
  "check",
  "file",
  "cuda",
  "all",
  "signal",
];

/** Options that a page names in spans of code: those of the span itself, or of a command of ditrun in it. */
function optionsIn(page: string): string[] {
  const spans = [...withoutFences(textOf(page)).matchAll(/`([^`]+)`/g)].map(([, span = ""]) => span);
  return spans
    .filter((span) => /^(?:-|(?:npx )?ditrun )/.test(span))
    .flatMap((span) => [...span.matchAll(/(?<=^|[\s,])--([\w-]+)/g)].map(([, name = ""]) => name))
    .map((name) => (declared.has(name) ? name : name.replace(/^no-/, "")));
}

// The changelog also names options that are gone.
test.each(pages.filter((page) => !["docs/options.md", "CHANGELOG.md"].includes(page)))(
  "%s names options that there are",
  (page) => {
    const known = (name: string) => declared.has(name) || others.includes(name) || Object.hasOwn(foreignOptions, name);
    expect(optionsIn(page).filter((name) => !known(name))).toEqual([]);
  },
);

test("docs/options.md has every option", () => {
  const listed = new Set(optionsIn("docs/options.md"));
  expect([...declared].filter((name) => !listed.has(name) && name !== "help" && name !== "version")).toEqual([]);
  expect(declared.size).toBeGreaterThan(40);
});
