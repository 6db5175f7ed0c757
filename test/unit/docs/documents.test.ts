import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { packageRoot } from "../../../src/paths.js";
import { packageVersion } from "../../../src/version.js";
import { blocksOf, pages, textOf } from "./pages.js";

const blocks = pages.flatMap((page) => blocksOf(page));
const textOfBlock = ({ lines }: { readonly lines: readonly string[] }) => lines.join("\n");

test.each(
  blocks.flatMap((block, index) => (["json", "yaml"].includes(block.info) ? [[block.page, index] as const] : [])),
)("%s, block %i can be parsed", (_page, index) => {
  const block = blocks[index];
  if (!block) throw new Error("There is no such block.");
  const text = textOfBlock(block);
  expect(() => (block.info === "json" ? JSON.parse(text) : parse(text))).not.toThrow();
});

test("the README has the two commands that set everything up, in a block of their own", () => {
  const [first] = blocks.filter(({ page, info }) => page === "README.md" && info === "");
  expect(first?.lines).toEqual(["npm ci && npx ditrun --nproc 8 --cp 4 --tp 2 profile", "npm test"]);
});

test("every program of examples/ is in its list", () => {
  const examples = readdirSync(join(packageRoot, "examples")).filter((name) => name !== "README.md");
  expect(examples.filter((name) => !textOf("examples/README.md").includes(`](${name}`))).toEqual([]);
});

test("the changelog has the package's version, and each version once", () => {
  const versions = [...textOf("CHANGELOG.md").matchAll(/^## (\d+\.\d+\.\d+)$/gm)].map(([, version]) => version);
  expect(versions).toContain(packageVersion());
  expect(new Set(versions).size).toBe(versions.length);
});

describe(".github", () => {
  const folder = join(packageRoot, ".github");
  const read = (path: string): unknown => parse(readFileSync(join(folder, path), "utf8"));

  test("the workflow runs the script of CI, on the oldest Node.js that is supported and newer ones", () => {
    const step = z.looseObject({ run: z.string().optional() });
    const job = z.looseObject({ strategy: z.object({ matrix: z.object({ node: z.array(z.int()) }) }).loose() });
    const { jobs } = z
      .looseObject({ jobs: z.object({ test: job.extend({ steps: z.array(step) }) }) })
      .parse(read("workflows/ci.yml"));
    expect(jobs.test.steps.map(({ run }) => run)).toContain(".ci/run");
    expect(existsSync(join(packageRoot, ".ci/run"))).toBe(true);
    const { engines } = z
      .looseObject({ engines: z.object({ node: z.string() }) })
      .parse(JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")));
    expect(`>=${Math.min(...jobs.test.strategy.matrix.node)}`).toBe(engines.node.split(".")[0]);
  });

  test.each(readdirSync(join(folder, "ISSUE_TEMPLATE")).filter((name) => name !== "config.yml"))(
    "the form %s can be filled in",
    (name) => {
      const item = z.object({ type: z.string(), id: z.string().optional() }).loose();
      const form = z.object({ name: z.string(), description: z.string(), body: z.array(item) }).loose();
      const { body } = form.parse(read(`ISSUE_TEMPLATE/${name}`));
      const ids = body.filter(({ type }) => type !== "markdown").map(({ id }) => id);
      expect(ids).not.toContain(undefined);
      expect(new Set(ids).size).toBe(ids.length);
    },
  );
});
