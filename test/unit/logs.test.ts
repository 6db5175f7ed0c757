import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openLog } from "../../src/launcher/logs.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ditrun-logs-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("stderr has sentences of the level, the file has all of them as JSON", () => {
  const stderr = new PassThrough();
  const { logger } = openLog("warn", folder, stderr);
  logger.warn("Careful.");
  logger.debug("A detail.");
  expect(String(stderr.read())).toBe("ditrun: Careful.\n");
  const lines = readFileSync(join(folder, "launcher.log"), "utf8").trim().split("\n");
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([{ msg: "Careful." }, { msg: "A detail." }]);
});

test("a full disk is said once and stops nothing", () => {
  symlinkSync("/dev/full", join(folder, "launcher.log"));
  const stderr = new PassThrough();
  const { logger } = openLog("info", folder, stderr);
  logger.info("One.");
  logger.info("Two.");
  const lines = String(stderr.read()).trim().split("\n");
  expect(lines.filter((line) => line.includes("cannot be written any more: the disk is full"))).toHaveLength(1);
  expect(lines).toEqual(expect.arrayContaining(["ditrun: One.", "ditrun: Two."]));
});

test("a folder that cannot be one is a sentence", () => {
  writeFileSync(join(folder, "file"), "");
  expect(() => openLog("info", join(folder, "file"))).toThrow(/file" cannot be written: something else of that name/);
});
