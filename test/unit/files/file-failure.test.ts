import { open, readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { fileFailure } from "../../../src/files/file-failure.js";

test("a full disk is called so", async () => {
  const handle = await open("/dev/full", "w");
  const error: unknown = await handle.write("x").catch((e: unknown) => e);
  await handle.close();
  expect(fileFailure(error)).toMatch(/^the disk is full/);
});

test("other failures are named in words, unknown ones by their message", async () => {
  expect(fileFailure(await readFile("/nowhere/at/all").catch((e: unknown) => e))).toMatch(/no such file/);
  expect(fileFailure(await readFile("/").catch((e: unknown) => e))).toBe("it is a directory");
  expect(fileFailure(new Error("odd"))).toBe("odd");
  expect(fileFailure("text")).toBe("text");
});
