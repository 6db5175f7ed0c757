import { execFileSync, spawn } from "node:child_process";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readTextFile } from "../../../src/files/text-file.js";
import { openForReading } from "../../../src/formats/tensor-file.js";

let dir = "";
let pipe = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-text-"));
  pipe = join(dir, "pipe");
  execFileSync("mkfifo", [pipe]);
});
afterAll(() => rm(dir, { recursive: true }));

test("a file and a pipe are read to their end; a pipe without a writer is empty", async () => {
  const file = join(dir, "file");
  await writeFile(file, "mesh: { cp: 2 } # ×");
  expect(await readTextFile(file)).toBe("mesh: { cp: 2 } # ×");
  expect(await readTextFile(pipe)).toBe("");
  const text = "×".repeat(100_000);
  const shell = spawn("bash", ["-c", 'exec 3<>"$1"; echo open; (sleep 0.1; cat "$2") > "$1"', "bash", pipe, file]);
  await writeFile(file, text);
  await new Promise((resolve) => shell.stdout.once("data", resolve));
  const reading = readTextFile(pipe);
  expect(await reading).toBe(text);
});

test("what has no end is refused", async () => {
  await expect(readTextFile("/dev/zero")).rejects.toThrow("it is neither a file nor a pipe");
  await expect(readTextFile(dir)).rejects.toThrow("it is a directory");
  const long = join(dir, "long");
  await writeFile(long, "");
  await truncate(long, 2 ** 30);
  await expect(readTextFile(long)).rejects.toThrow("it is longer than 16 MiB");
  await expect(readTextFile(long, 2 ** 16)).rejects.toThrow("it is longer than 64 KiB");
});

test("weights are never read from a pipe, nor waited for", async () => {
  await expect(openForReading(pipe)).rejects.toThrow(`Cannot read ${pipe} as weights: it is not a regular file.`);
});
