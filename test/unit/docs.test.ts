import { existsSync, readdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, expect, test } from "vitest";
import { packageRoot } from "../../src/paths.js";
import { pages, textOf, withoutFences } from "./docs/pages.js";

/** Folders at the top that hold what is in the repository. What a build makes is compared with its source, or not at all. */
const rooms = readdirSync(packageRoot, { withFileTypes: true })
  .filter((entry) => entry.isDirectory() && !["node_modules", "build", ".git"].includes(entry.name))
  .map((entry) => entry.name);
const sourceEnding = /\.(?:ts|js|cu|cuh|cpp|h|py|sh|md)$/;

/** Words in backticks that name a file or a folder of the repository: they begin with a folder at the top, or end as sources do. */
function pathsIn(text: string): string[] {
  const spans = [...withoutFences(text).matchAll(/`([^`]+)`/g)].map(([, span = ""]) => span.replace(/\s+/g, " "));
  return spans
    .flatMap((span) => span.split(" "))
    .filter((word) => /^[\w./-]+$/.test(word))
    .filter(
      (word) => rooms.includes(word.split("/")[0] ?? "") || (!word.startsWith("build/") && sourceEnding.test(word)),
    )
    .filter((word) => word.includes("/") || sourceEnding.test(word));
}

/** dist/ is what src/ compiles to. */
function isThere(path: string): boolean {
  const source = path.replace(/^dist\/(.*)\.js$/, "src/$1.ts").replace(/^dist\//, "src/");
  return existsSync(join(packageRoot, source));
}

/** Targets of links; a picture is one too. */
function linksIn(text: string): string[] {
  return [...withoutFences(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = ""]) => target);
}

/** As GitHub makes a heading's anchor. */
function anchorsOf(text: string): string[] {
  const headings = [...withoutFences(text).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => heading);
  return headings.map((heading) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

/** Why a link of a page leads nowhere; undefined for one that does, and for the web, which is not asked. */
function brokenLink(page: string, target: string): string | undefined {
  if (/^https?:/.test(target)) return undefined;
  const [file = "", anchor] = target.split("#");
  const path = file === "" ? page : relative(packageRoot, join(packageRoot, dirname(page), file));
  if (!existsSync(join(packageRoot, path))) return `${path} is not there`;
  if (anchor === undefined || anchorsOf(textOf(path)).includes(anchor)) return undefined;
  return `${path} has no heading #${anchor}`;
}

describe.each(pages)("%s", (page) => {
  const text = textOf(page);

  test("names files that exist", () => {
    expect(pathsIn(text).filter((path) => !isThere(path))).toEqual([]);
  });

  test("links to what exists", () => {
    expect(linksIn(text).flatMap((target) => brokenLink(page, target) ?? [])).toEqual([]);
  });
});

test("every page is linked from another", () => {
  const linked = pages.flatMap((page) =>
    linksIn(textOf(page))
      .filter((target) => !/^https?:/.test(target) && !target.startsWith("#"))
      .map((target) => relative(packageRoot, join(packageRoot, dirname(page), target.split("#")[0] ?? "")))
      .filter((target) => target !== page),
  );
  expect(pages.filter((page) => page.startsWith("docs/") && !linked.includes(page))).toEqual([]);
});

test.each(["a-command", "a-kernel", "a-model", "a-plan"])("docs/add-%s.md numbers its files without a gap", (name) => {
  const text = withoutFences(textOf(`docs/add-${name}.md`));
  const steps = [...text.matchAll(/^(\d+)\. (.*)$/gm)];
  expect(steps.map(([, number]) => Number(number))).toEqual(steps.map((_, index) => index + 1));
  expect(steps.length).toBeGreaterThan(3);
  for (const [, , step = ""] of steps) expect(pathsIn(step)).not.toEqual([]);
});

test("the page of the map is one page with one picture", () => {
  const text = textOf("docs/architecture.md");
  expect(text.split("\n").length).toBeLessThanOrEqual(120);
  expect(text.match(/^```mermaid$/gm)).toHaveLength(1);
});

test("what is looked for is found", () => {
  const text = [
    "`src/nowhere.ts`, `comm/lost.ts` and `python3 test/gpu/none.py build/libditrun_cuda.so`; `dist/cli/main.js`,",
    "`a plan`, `cp4 × tp2`, `video-2.mp4`, [one](nowhere.md), [two](https://example.org), [three](../README.md#no-such).",
    "```",
    "`src/fenced.ts` [four](fenced.md)",
    "```",
  ].join("\n");
  const paths = ["src/nowhere.ts", "comm/lost.ts", "test/gpu/none.py", "dist/cli/main.js"];
  expect(pathsIn(text)).toEqual(paths);
  expect(paths.filter(isThere)).toEqual(["dist/cli/main.js"]);
  expect(linksIn(text).map((target) => brokenLink("docs/architecture.md", target))).toEqual([
    "docs/nowhere.md is not there",
    undefined,
    "README.md has no heading #no-such",
  ]);
});
