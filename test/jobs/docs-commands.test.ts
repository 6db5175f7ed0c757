import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../src/paths.js";
import { commandsOf, type ShownCommand } from "../unit/docs/commands.js";
import { pages } from "../unit/docs/pages.js";

// What needs nothing is typed as a reader would. What needs a GPU, and dry runs, are only read, in test/unit/docs/commands.test.ts.
// So are those of pages on programs and hosts that are not here.
const elsewhere = ["docs/hosts.md", "docs/launch.md"];
const commands = pages
  .filter((page) => !elsewhere.includes(page))
  .flatMap((page) => commandsOf(page))
  .filter(({ needs, words }) => needs === "nothing" && !words.includes("--dry-run"));
const once = [...new Map(commands.map((command) => [command.text, command])).values()];

describe("commands of the pages run on a CPU", () => {
  const folder = mkdtempSync(join(tmpdir(), "docs-commands-"));
  // Pages name files of a clone.
  symlinkSync(join(packageRoot, "models"), join(folder, "models"));
  afterAll(() => rmSync(folder, { recursive: true }));

  test.each(once.map((command) => [command.page, command.text, command] as const))(
    "%s: %s",
    async (_page, _text, { words, file }: ShownCommand) => {
      if (file) writeFileSync(join(folder, file.name), file.text);
      const { exitCode, stdout, stderr } = await execa("node", [join(packageRoot, "bin/ditrun.js"), ...words], {
        ...{ cwd: folder, reject: false, stdin: "ignore" },
        env: { DITRUN_KERNELS: "", MASTER_PORT: "", CUDA_VISIBLE_DEVICES: "" },
      });
      if (file) rmSync(join(folder, file.name));
      expect({ exitCode, stderr: exitCode === 0 ? "" : stderr }).toEqual({ exitCode: 0, stderr: "" });
      expect(stdout.length).toBeGreaterThan(40);
    },
  );
});
