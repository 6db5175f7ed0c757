import { execa } from "execa";
import { expect, test } from "vitest";

test("tables of docs/ have what the command line declares and what the engine's rehearsal needs", async () => {
  const { exitCode, stdout, stderr } = await execa("node", ["scripts/docs-tables.js", "--check"], { reject: false });
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  expect(stdout).toBe("The tables of docs/ are as the code says.");
});
