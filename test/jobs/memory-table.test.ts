import { execa } from "execa";
import { expect, test } from "vitest";

test("docs/memory.md has what the engine's rehearsal needs", async () => {
  const { exitCode, stdout, stderr } = await execa("node", ["scripts/memory-table.js", "--check"], { reject: false });
  expect({ exitCode, said: stdout + stderr }).toEqual({ exitCode: 0, said: "docs/memory.md is as the engine says." });
});
