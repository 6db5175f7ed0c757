import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { takeName } from "../../../src/files/free-name.js";
import { checkOutputFile } from "../../../src/files/output-file.js";
import { writeSafetensors } from "../../../src/formats/safetensors.js";

let dir = "";
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-output-"));
});
afterAll(() => rm(dir, { recursive: true }));

test("a new file, an old one and a device that is written to directly are fine", async () => {
  await checkOutputFile(join(dir, "new"), true);
  await checkOutputFile(import.meta.filename, true);
  await checkOutputFile("/dev/null", false);
});

test.each([
  ["", true, 'Cannot write "": a file needs a name.'],
  ["/", false, "Cannot write /: it is a directory."],
  ["/nowhere/x", false, "Cannot write /nowhere/x: there is no folder /nowhere."],
  ["/dev/null", true, "Cannot write /dev/null: it is a device or a pipe; name a regular file."],
])("%j is refused (renamed: %s)", async (path, renamed, message) => {
  await expect(checkOutputFile(path, renamed)).rejects.toThrow(message);
});

test("a finished file takes the first name that is free", async () => {
  const folder = join(dir, "names");
  await mkdir(folder);
  for (const [turn, name] of ["a.x", "a-2.x", "a-3.x"].entries()) {
    const temporary = join(folder, "temporary");
    await writeFile(temporary, String(turn));
    expect(await takeName(temporary, join(folder, "a.x"), false)).toBe(join(folder, name));
    expect(await readFile(join(folder, name), "utf8")).toBe(String(turn));
  }
  await rm(folder, { recursive: true });
});

test("tensors never take the place of a device", async () => {
  const link = join(dir, "null.safetensors");
  await symlink("/dev/null", link);
  await expect(writeSafetensors(link, {})).rejects.toThrow(/it is a device or a pipe/);
  expect((await stat(link)).isCharacterDevice()).toBe(true);
  expect(await readdir(dir)).toEqual(["null.safetensors"]);
});
