import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { packageCommit } from "../../src/version.js";

const folder = mkdtempSync(join(tmpdir(), "ditrun-version-"));
afterAll(() => rmSync(folder, { recursive: true }));
const commit = "338ce556ee8082a7913f397eb7492f8569e6d49f";

/** A folder with these files. */
function root(name: string, files: Readonly<Record<string, string>>): string {
  for (const [file, text] of Object.entries(files)) {
    const path = join(folder, name, file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
  return join(folder, name);
}

test.each([
  ["a branch", { ".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": `${commit}\n` }, commit],
  ["no branch", { ".git/HEAD": `${commit}\n` }, commit],
  [
    "packed refs",
    { ".git/HEAD": "ref: refs/heads/main\n", ".git/packed-refs": `# pack-refs\n${commit} refs/heads/main\n` },
    commit,
  ],
  [
    "a worktree",
    {
      ".git": "gitdir: repository/worktrees/one\n",
      "repository/worktrees/one/HEAD": "ref: refs/heads/one\n",
      "repository/worktrees/one/commondir": "../..\n",
      "repository/refs/heads/one": `${commit}\n`,
    },
    commit,
  ],
  ["a new repository", { ".git/HEAD": "ref: refs/heads/main\n" }, null],
  ["a release", { "package.json": "{}" }, null],
])("the commit of %s", (name, files, expected) => {
  expect(packageCommit(root(name, files))).toBe(expected);
});
