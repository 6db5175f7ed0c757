import { readdirSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { expect, test } from "vitest";
import { packageRoot } from "../../src/paths.js";

/** Runs a program of examples/ as a user would, upon dist/. */
async function example(name: string, ...args: string[]) {
  const { exitCode, stdout, stderr } = await execa("node", [join("examples", name), ...args], {
    cwd: packageRoot,
    reject: false,
  });
  return { exitCode, lines: stdout.split("\n"), stderr };
}

test("every example is run here", () => {
  expect(readdirSync(join(packageRoot, "examples"))).toEqual(["launch-a-command.js"]);
});

test("launch-a-command: four ranks meet at one place, and a failure names its rank", async () => {
  const { exitCode, lines, stderr } = await example("launch-a-command.js");
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  const said = lines.slice(0, -1).sort();
  expect(said).toEqual([0, 1, 2, 3].map((rank) => expect.stringContaining(`[${rank}] rank ${rank} of 4 would meet`)));
  expect(new Set(said.map((line) => line.split(" at ")[1])).size).toBe(1);
  expect(lines.at(-1)).toBe("All 4 ranks have ended well.");

  const failed = await example("launch-a-command.js", "sh", "-c", "test $RANK != 2 || exit 9; sleep 100");
  expect(failed).toMatchObject({ exitCode: 9, stderr: expect.stringMatching(/^ERR_RANK_FAILED, rank 2: Rank 2 \(/) });
});
