import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { execa } from "execa";
import { afterEach, beforeEach, expect, test } from "vitest";
import { makeTemporaryFolder, openTemporary } from "../../../src/files/temporary.js";
import { packageRoot } from "../../../src/paths.js";

let dir = "";
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "ditrun-temporary-"));
});
afterEach(() => rm(dir, { recursive: true }));

const built = JSON.stringify(pathToFileURL(join(packageRoot, "dist", "files", "temporary.js")).href);

/** A process that makes a temporary file for video.mp4 and a folder, says so, and stays. */
async function maker() {
  const program = `
    import { makeTemporaryFolder, openTemporary } from ${built};
    await openTemporary("video.mp4");
    await makeTemporaryFolder(".", "work");
    console.log("made");
    setInterval(() => {}, 1e9);`;
  const child = execa("node", ["--input-type=module", "-e", program], { cwd: dir, reject: false, stdin: "ignore" });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  return { child };
}

test("what a killed process has left goes when the next makes the same; what a running one has made stays", async () => {
  const [{ child: killed }, { child: running }] = [await maker(), await maker()];
  expect(await readdir(dir)).toHaveLength(4);
  killed.kill("SIGKILL");
  await killed;
  const left = (await readdir(dir)).filter((name) => name.includes(`-${killed.pid}-`));
  const kept = (await readdir(dir)).filter((name) => name.includes(`-${running.pid}-`));
  expect([left.length, kept.length]).toEqual([2, 2]);

  const { name, file } = await openTemporary(join(dir, "video.mp4"));
  await file.close();
  expect((await readdir(dir)).sort()).toEqual(
    [...kept, ...left.filter((one) => one.startsWith("work")), basename(name)].sort(),
  );
  const folder = await makeTemporaryFolder(dir, "work");
  expect((await readdir(dir)).sort()).toEqual([...kept, basename(name), basename(folder)].sort());
  running.kill("SIGKILL");
  await running;
});

test("what need not be of a process that has ended stays", async () => {
  const { name, file } = await openTemporary(join(dir, "own"));
  await file.close();
  const [place, pid, start, random] = basename(name)
    .replace(/^own\./, "")
    .replace(/\.tmp$/, "")
    .split("-");
  const ended = (await execa("node", ["-e", "process.stdout.write(String(process.pid))"])).stdout;
  const others = [
    `v.${"0".repeat(12)}-${ended}-${start}-${random}.tmp`,
    `v.${place}-${pid}-${start}-${random}.tmp`,
    `v.${place}-${ended}-${random}.tmp`,
    `v.${place}-${ended}-1-${random}.part.tmp`,
    `v.${place}-0-1-${random}.tmp`,
    "v.0123456789ab.tmp",
    `w.${place}-${ended}-1-${random}.tmp`,
  ];
  for (const other of others) await writeFile(join(dir, other), "");
  const reused = `v.${place}-${pid}-1-${random}.tmp`;
  await writeFile(join(dir, `v.${place}-${ended}-1-${random}.tmp`), "");
  await mkdir(join(dir, reused));
  const made = await openTemporary(join(dir, "v"));
  await made.file.close();
  expect((await readdir(dir)).sort()).toEqual([...others, basename(name), basename(made.name)].sort());
});

test("a name as long as the file system takes has a temporary file too", async () => {
  for (const path of [join(dir, `${"视频".repeat(41)}.mp4`), join(dir, "v".repeat(255))]) {
    await writeFile(path, "");
    const { name, file } = await openTemporary(path);
    await file.close();
    expect(Buffer.byteLength(basename(name))).toBeLessThanOrEqual(255);
    expect(basename(name)).not.toContain("\ufffd");
    await rename(name, path);
  }
  expect(await readdir(dir)).toHaveLength(2);
});
