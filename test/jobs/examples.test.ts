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
  // What is for schedulers is read by test/unit/launcher/cluster.
  const programs = readdirSync(join(packageRoot, "examples")).filter((name) => name.endsWith(".js"));
  expect(programs).toEqual(["launch-a-command.js", "plan-against-one-device.js", "three-prompts.js"]);
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

test("three-prompts: one engine makes three videos, and tells of each step", async () => {
  const { exitCode, lines, stderr } = await example("three-prompts.js");
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  expect(lines.filter((line) => line === "step 1 of 2")).toHaveLength(3);
  expect(lines.filter((line) => line.endsWith(": 17 frames of 96×96"))).toHaveLength(3);
});

test("plan-against-one-device: the frames of two workers are those of one, to rounding", async () => {
  const { exitCode, lines, stderr } = await example("plan-against-one-device.js");
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  const [, largest] = /^cp2 and one worker: no byte of 470016 differs by more than (\d+)\.$/.exec(lines[0] ?? "") ?? [];
  // In bf16: 14 as seen, at the edge of a shape. Another video differs by up to 255.
  expect(Number(largest)).toBeLessThanOrEqual(32);
});
