import { execFileSync } from "node:child_process";
import { mkdtemp, type open as openFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { withFileLock } from "../../../src/files/file-lock.js";

// Another process removes the lock file between the moment when it is opened and that when it is locked, once.
let removed = false;
vi.mock("node:fs/promises", async (original) => {
  const files = await original<typeof import("node:fs/promises")>();
  const open: typeof openFile = async (path, ...more) => {
    const file = await files.open(path, ...more);
    if (!removed) await files.rm(path.toString());
    removed = true;
    return file;
  };
  return { ...files, open };
});

test("the lock of a file that was removed is none: whoever comes next would lock a new one", async () => {
  const folder = await mkdtemp(join(tmpdir(), "ditrun-lock-"));
  const path = join(folder, "lock");
  const there = await withFileLock(
    path,
    () => undefined,
    async () => (await stat(path)).isFile(),
  );
  expect([removed, there]).toEqual([true, true]);
  await rm(folder, { recursive: true });
});

test("a pipe of that name is not waited for", async () => {
  const folder = await mkdtemp(join(tmpdir(), "ditrun-lock-"));
  const path = join(folder, "lock");
  execFileSync("mkfifo", [path]);
  const done = await withFileLock(
    path,
    () => undefined,
    async () => true,
  );
  expect(done).toBe(true);
  await rm(folder, { recursive: true });
});
